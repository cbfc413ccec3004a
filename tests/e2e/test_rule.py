"""A rule of a listener instead of its default action, and the very first deployment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.e2e.running import Running


def test_the_traffic_of_a_rule_moves_and_the_rest_stays(sandbox: Running) -> None:
    rule = _add_rule(sandbox)
    default = sandbox.weights()
    elbv2 = sandbox.client("elbv2")
    try:
        sandbox.push("by-rule")
        with sandbox.configured({"router.rule_priority": 10}), sandbox.under_load():
            ended = sandbox.deploy("by-rule")
            assert ended.succeeded, ended.cause
            assert sandbox.answer()["X-Version"] == "by-rule"
            (described,) = elbv2.describe_rules(RuleArns=[rule])["Rules"]
            assert described["Conditions"][0]["Field"] == "path-pattern"
            assert sandbox.weights() == default
            statuses = sandbox.mackerel_statuses("web")
            assert (
                statuses[
                    f"ecs-bluegreen.123456789012.ap-northeast-1.web.web-{sandbox.answer()['X-Color']}"
                ]
                == "working"
            )
            back = sandbox.roll_back(ended.name)
            assert back.succeeded, back.cause
    finally:
        elbv2.delete_rule(RuleArn=rule)


def _add_rule(sandbox: Running) -> str:
    """Every path, to what is live; the default action is not reached any more."""
    elbv2 = sandbox.client("elbv2")
    balancer = elbv2.describe_load_balancers(Names=["web"])["LoadBalancers"][0]
    listeners = elbv2.describe_listeners(LoadBalancerArn=balancer["LoadBalancerArn"])["Listeners"]
    (listener,) = (one for one in listeners if one["Port"] == 8080)
    actions: Any = listener["DefaultActions"]
    answer = elbv2.create_rule(
        ListenerArn=listener["ListenerArn"],
        Priority=10,
        Conditions=[{"Field": "path-pattern", "Values": ["/*"]}],
        Actions=actions,
    )
    return str(answer["Rules"][0]["RuleArn"])


@pytest.mark.parametrize("nothing_live", ["no tasks", "no weight"])
def test_the_very_first_deployment(tmp_path: Path, spare_network: str, nothing_live: str) -> None:
    sandbox = Running(tmp_path, spare_network)
    sandbox.start()
    try:
        assert sandbox.counts() == {"blue": (0, 0), "green": (0, 0)}
        if nothing_live == "no weight":
            sandbox.set_weights({"blue": 0, "green": 0})
        ended = sandbox.deploy("v1")
        assert ended.succeeded, ended.cause
        live = sandbox.live()
        assert live == ("green" if nothing_live == "no tasks" else "blue")
        assert sandbox.counts()[live] == (2, 2)
        assert sandbox.answer()["X-Color"] == live
        sandbox.push("v2")
        with sandbox.under_load():
            assert sandbox.deploy("v2").succeeded
    finally:
        sandbox.stop()
