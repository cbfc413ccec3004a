"""States and reasons of targets, as application and network load balancers give them."""

from __future__ import annotations

import pytest

from sandbox.alb.targets import CheckResult, State, Target, receiving

GROUP = "arn:aws:elasticloadbalancing:ap-northeast-1:123456789012:targetgroup/web/1"
PASSED = CheckResult(healthy=True)
FAILED = CheckResult(
    False, "Target.ResponseCodeMismatch", "Health checks failed with these codes: [503]"
)
REFUSED = CheckResult(False, "Target.FailedHealthChecks", "Health checks failed")


def a_target(state: State = "initial", port: int = 8000) -> Target:
    target = Target((GROUP, "i-1", port), "127.0.1.1")
    match state:
        case "unused":
            target.use(in_use=False)
            return target
        case "draining":
            target.drain(60.0)
            return target
    target.use(in_use=True)
    if state != "initial":
        check(target, [PASSED if state == "healthy" else FAILED] * 2)
    assert target.state == state
    return target


def check(target: Target, results: list[CheckResult]) -> State:
    for result in results:
        target.record(result, healthy_threshold=3, unhealthy_threshold=2)
    return target.state


def test_a_new_target_is_registered_and_then_checked() -> None:
    target = Target((GROUP, "i-1", 8000), "127.0.1.1")
    assert (target.state, target.reason) == ("initial", "Elb.RegistrationInProgress")
    target.use(in_use=True)
    assert (target.state, target.reason) == ("initial", "Elb.InitialHealthChecking")


def test_one_check_makes_a_new_target_healthy() -> None:
    target = a_target()
    assert check(target, [PASSED]) == "healthy"
    assert (target.reason, target.description) == (None, None)


def test_a_new_target_of_a_network_load_balancer_has_to_pass_the_threshold_in_a_row() -> None:
    target = Target((GROUP, "i-1", 8000), "127.0.1.1", quick=False)
    target.use(in_use=True)
    assert check(target, [PASSED, PASSED, FAILED, PASSED, PASSED]) == "initial"
    assert target.reason == "Elb.InitialHealthChecking"
    assert check(target, [PASSED]) == "healthy"


def test_a_new_target_becomes_unhealthy_by_failing_in_a_row() -> None:
    target = Target((GROUP, "i-1", 8000), "127.0.1.1", quick=False)
    target.use(in_use=True)
    assert check(target, [FAILED, PASSED, FAILED]) == "initial"
    assert check(target, [FAILED]) == "unhealthy"


def test_an_unhealthy_target_has_to_pass_the_threshold_in_a_row() -> None:
    target = a_target("unhealthy")
    assert check(target, [PASSED, PASSED, FAILED, PASSED, PASSED]) == "unhealthy"
    assert check(target, [PASSED]) == "healthy"


def test_a_healthy_target_has_to_fail_the_threshold_in_a_row() -> None:
    target = a_target("healthy")
    assert check(target, [FAILED, PASSED, FAILED]) == "healthy"
    assert check(target, [FAILED]) == "unhealthy"
    assert target.reason == "Target.ResponseCodeMismatch"
    assert target.description == "Health checks failed with these codes: [503]"


def test_an_unhealthy_target_says_why_the_last_check_failed() -> None:
    target = a_target("unhealthy")
    check(target, [REFUSED])
    assert target.reason == "Target.FailedHealthChecks"


def test_a_target_of_a_group_that_nothing_uses_is_unused_and_never_checked() -> None:
    target = a_target("unused")
    assert (target.state, target.reason) == ("unused", "Target.NotInUse")
    assert check(target, [PASSED, FAILED, FAILED]) == "unused"


@pytest.mark.parametrize("state", ["healthy", "unhealthy"])
def test_it_starts_anew_when_its_group_is_used_again(state: State) -> None:
    target = a_target(state)
    target.use(in_use=False)
    assert target.state == "unused"
    target.use(in_use=True)
    assert (target.state, target.reason) == ("initial", "Elb.InitialHealthChecking")
    assert check(target, [PASSED]) == "healthy"


def test_use_alone_changes_no_state() -> None:
    target = a_target("healthy")
    target.use(in_use=True)
    assert target.state == "healthy"


def test_a_draining_target_stays_draining_whatever_happens() -> None:
    target = a_target("healthy")
    target.drain(60.0)
    target.use(in_use=False)
    target.use(in_use=True)
    assert check(target, [FAILED, FAILED, PASSED]) == "draining"
    assert target.reason == "Target.DeregistrationInProgress"
    assert target.gone_at == 60.0


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ([], []),
        (["healthy", "initial", "unhealthy", "draining"], ["healthy"]),
        (["initial", "unhealthy", "draining"], ["initial", "unhealthy"]),  # fail-open
        (["draining"], []),
        (["unused"], []),
    ],
)
def test_who_gets_new_requests(states: list[State], expected: list[State]) -> None:
    targets = [a_target(state, port) for port, state in enumerate(states)]
    keys = receiving(targets)
    assert [target.state for target in targets if target.key in keys] == expected
