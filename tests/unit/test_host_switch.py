"""Switching all hosts together: the answers of one look, and the one next step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bluegreen.fleet import LISTED_AFTER_SECONDS, Answer, Host
from bluegreen.host_switch import GRACE_SECONDS, Decision, Switch, next_step, spread_ms

ANSWER_SECONDS = 60
ASKED_AT = 1000.0
# Well after SSM lists what was sent.
LATER = ASKED_AT + 5
IDS = ["i-1", "i-2", "i-3"]
STAGING = Switch("staging", 7, IDS, ASKED_AT, ASKED_AT, ["c-1"])
AT = ASKED_AT + 10
SET = Switch("set", 7, IDS, ASKED_AT, ASKED_AT, at=AT)
COMMITTING = Switch("committing", 7, IDS, ASKED_AT, ASKED_AT, ["c-2"], AT)
# Until when a result may take to show: the grace of the hosts, then that of SSM.
END = AT + GRACE_SECONDS + 10

READY = Answer("answered", {"staged": 7})
SWITCHED = Answer("answered", {"generation": 7, "switched_at": AT})
PENDING = Answer("pending", {}, "SSM says InProgress")
SILENT = Answer("silent", {}, "SSM says DeliveryTimedOut")
BROKEN = Answer("failed", {}, "nginx -t: unexpected end of file")
THREE = [Host("i-1", draining=False), Host("i-2", draining=False), Host("i-3", draining=False)]


def said(*answers: Answer | None) -> dict[str, Answer]:
    """Answers of i-1, i-2 …; None: SSM lists nothing for it."""
    return {f"i-{number}": answer for number, answer in enumerate(answers, 1) if answer is not None}


def step(
    switch: Switch, answers: Mapping[str, Answer], now: float = LATER, hosts: list[Host] = THREE
) -> Decision:
    return next_step(switch, hosts, answers, now, ANSWER_SECONDS)


# Staging: nothing has changed anywhere


def test_when_all_hosts_are_ready_the_moment_is_set() -> None:
    found = step(STAGING, said(READY, READY, READY))
    assert found == Decision("set", "all hosts are ready", ["i-1", "i-2", "i-3"])


def test_one_host_that_cannot_fails_before_anything_is_switched() -> None:
    found = step(STAGING, said(READY, BROKEN, READY))
    assert found == Decision(
        "fail", "host i-2: nginx -t: unexpected end of file; no traffic was moved"
    )


def test_one_host_that_cannot_is_not_waited_for_though_others_have_not_answered() -> None:
    assert step(STAGING, said(PENDING, BROKEN, SILENT)).step == "fail"


def test_a_host_that_has_not_answered_yet_is_waited_for() -> None:
    found = step(STAGING, said(READY, PENDING, READY))
    assert found == Decision("wait", "1 of 3 hosts have not answered yet")


def test_17_a_host_that_a_command_has_not_reached_is_asked_again() -> None:
    found = step(STAGING, said(READY, SILENT, PENDING), ASKED_AT + 40)
    assert found == Decision("ask", "2 of 3 hosts have not answered yet", ["i-2"])


def test_17_a_host_is_not_asked_again_before_the_last_question_shows() -> None:
    again = replace(STAGING, sent_at=ASKED_AT + 40)
    silent = said(READY, SILENT, READY)
    assert step(again, silent, ASKED_AT + 40 + LISTED_AFTER_SECONDS - 0.1).step == "wait"
    assert step(again, silent, ASKED_AT + 40 + LISTED_AFTER_SECONDS).step == "ask"


def test_14_a_host_that_has_appeared_since_is_not_part_of_it() -> None:
    """CheckBake finds it, and brings it in; a fleet that grows all the time ends all the same."""
    more = [*THREE, Host("i-4", draining=False)]
    assert step(STAGING, said(READY, READY, READY), hosts=more).hosts == IDS
    assert step(SET, {}, hosts=more).hosts == IDS
    assert step(COMMITTING, said(SWITCHED, SWITCHED, SWITCHED), AT + 1, more).step == "done"


@pytest.mark.parametrize("answer", [PENDING, SILENT, None], ids=str)
def test_17_a_host_that_does_not_answer_is_named_when_its_time_is_over(
    answer: Answer | None,
) -> None:
    before = step(STAGING, said(READY, answer, READY), ASKED_AT + ANSWER_SECONDS - 0.1)
    assert before.step in ("wait", "ask")
    found = step(STAGING, said(READY, answer, READY), ASKED_AT + ANSWER_SECONDS)
    assert found.step == "fail"
    assert found.reason.startswith("no answer within 60 s: host i-2: ")
    assert found.reason.endswith("; no traffic was moved")


def test_17_the_time_of_a_host_counts_from_the_first_question_not_from_the_last() -> None:
    again = replace(STAGING, commands=["c-1", "c-2"], sent_at=ASKED_AT + 59)
    assert step(again, said(READY, SILENT, READY), ASKED_AT + 60).step == "fail"


def test_17_a_command_that_ssm_does_not_list_yet_is_under_way() -> None:
    """SendCommand was accepted; ListCommandInvocations shows nothing for a moment."""
    soon = ASKED_AT + LISTED_AFTER_SECONDS - 0.1
    assert step(STAGING, {}, soon).step == "wait"
    assert step(STAGING, {}, ASKED_AT + LISTED_AFTER_SECONDS).step == "ask"


def test_17_a_command_to_switch_that_ssm_never_lists_may_still_be_carried_out() -> None:
    """Until the hosts themselves would refuse it."""
    unlisted = said(SWITCHED, None, SWITCHED)
    assert step(COMMITTING, unlisted, END - 0.1).step == "wait"
    found = step(COMMITTING, unlisted, END)
    assert (found.step, found.reason) == (
        "fail",
        "host i-2: SSM does not list the command yet; 2 of 3 hosts have switched",
    )


@pytest.mark.parametrize("answer", [PENDING, SILENT, BROKEN], ids=str)
def test_17_a_host_that_is_gone_holds_nobody_up(answer: Answer) -> None:
    """A terminated instance leaves its invocation pending for ever; EC2 says that it is gone."""
    rest = [THREE[0], THREE[2]]
    found = step(STAGING, said(READY, answer, READY), hosts=rest)
    assert (found.step, found.hosts) == ("set", ["i-1", "i-3"])
    assert step(SET, {}, hosts=rest).hosts == ["i-1", "i-3"]
    found = step(COMMITTING, said(SWITCHED, answer, SWITCHED), hosts=rest)
    assert (found.step, found.reason) == ("done", "2 of 2 hosts have switched")


def test_a_host_that_is_being_emptied_need_not_be_ready() -> None:
    """Nothing of the new colour is started there."""
    hosts = [THREE[0], replace(THREE[1], draining=True), THREE[2]]
    found = step(STAGING, said(READY, BROKEN, READY), hosts=hosts)
    assert (found.step, found.hosts) == ("set", ["i-1", "i-3"])
    found = step(STAGING, said(READY, READY, READY), hosts=hosts)
    assert (found.step, found.hosts) == ("set", ["i-1", "i-2", "i-3"])


def test_21_a_host_that_is_being_emptied_has_to_answer_all_the_same() -> None:
    hosts = [THREE[0], replace(THREE[1], draining=True), THREE[2]]
    assert step(STAGING, said(READY, PENDING, READY), hosts=hosts).step == "wait"
    assert step(STAGING, said(READY, SILENT, READY), hosts=hosts).hosts == ["i-2"]


# The moment is set; then they are told


def test_the_hosts_that_are_ready_are_told_at_the_next_pass() -> None:
    """A pass that is repeated tells them the same moment, because it was set in the one before."""
    found = step(SET, {})
    assert found == Decision("commit", "3 hosts switch at a set moment", ["i-1", "i-2", "i-3"])
    some = replace(SET, hosts=["i-1", "i-3"])
    assert step(some, said(READY, BROKEN, READY)).hosts == ["i-1", "i-3"]


# Committing


def test_when_all_hosts_have_switched_it_is_done() -> None:
    found = step(COMMITTING, said(SWITCHED, SWITCHED, SWITCHED), AT + 1)
    assert found == Decision("done", "3 of 3 hosts have switched")


def test_hosts_that_wait_for_the_moment_are_waited_for() -> None:
    found = step(COMMITTING, said(PENDING, PENDING, PENDING), AT - 1)
    assert found == Decision("wait", "0 of 3 hosts have switched")


def test_one_host_that_refuses_is_named_at_once() -> None:
    late = Answer("failed", {}, "too late by 3.141 s")
    found = step(COMMITTING, said(SWITCHED, late, PENDING), AT + 1)
    assert found == Decision("fail", "host i-2: too late by 3.141 s; 1 of 3 hosts have switched")


def test_17_a_host_that_the_command_never_reached_is_named() -> None:
    found = step(COMMITTING, said(SWITCHED, SWITCHED, SILENT), AT + 21)
    assert (found.step, found.reason) == (
        "fail",
        "host i-3: SSM says DeliveryTimedOut; 2 of 3 hosts have switched",
    )


def test_17_a_host_of_which_nothing_is_heard_is_named_when_the_grace_is_over() -> None:
    waiting = said(SWITCHED, PENDING, SWITCHED)
    assert step(COMMITTING, waiting, END - 0.1).step == "wait"
    found = step(COMMITTING, waiting, END)
    assert (found.step, found.reason) == (
        "fail",
        "host i-2: SSM says InProgress; 2 of 3 hosts have switched",
    )


def test_24_of_many_hosts_five_are_named_and_the_others_counted() -> None:
    hosts = [Host(f"i-{number}", draining=False) for number in range(60)]
    many = replace(STAGING, hosts=[host.instance_id for host in hosts])
    answers = {host.instance_id: BROKEN for host in hosts[1:]}
    reason = step(many, answers, hosts=hosts).reason
    assert reason.count("unexpected end of file") == 5
    assert "; and 54 more; no traffic was moved" in reason
    five = {host.instance_id: BROKEN if int(host.instance_id[2:]) < 5 else READY for host in hosts}
    assert "more; no" not in step(many, five, hosts=hosts).reason


# How far apart


def test_the_spread_is_between_the_first_and_the_last_host_that_has_switched() -> None:
    answers = said(
        Answer("answered", {"switched_at": AT}),
        Answer("answered", {"switched_at": AT + 0.0042}),
        Answer("answered", {"switched_at": AT + 0.001}),
        BROKEN,
    )
    assert spread_ms(answers) == 4.2


def test_nobody_switched_and_nobody_knows_when_are_no_spread() -> None:
    assert spread_ms({}) == 0.0
    assert spread_ms(said(BROKEN, Answer("answered", {"switched_at": None}))) == 0.0


# Whatever the hosts answer

an_answer = st.sampled_from([READY, PENDING, SILENT, BROKEN, None])
some_answers = st.lists(an_answer, min_size=3, max_size=3).map(lambda found: said(*found))
some_hosts = st.lists(
    st.sampled_from(["i-1", "i-2", "i-3", "i-4"]), unique=True, max_size=4
).flatmap(
    lambda ids: st.lists(st.booleans(), min_size=len(ids), max_size=len(ids)).map(
        lambda draining: [Host(*one) for one in zip(ids, draining, strict=True)]
    )
)
moments = st.sampled_from(
    [ASKED_AT, ASKED_AT + 2, LATER, AT, END - 0.1, END, ASKED_AT + ANSWER_SECONDS]
)


@given(some_hosts, some_answers, moments)
def test_all_or_none_no_moment_is_set_before_every_host_that_takes_tasks_is_ready(
    hosts: list[Host], answers: dict[str, Answer], now: float
) -> None:
    found = step(STAGING, answers, now, hosts)
    if found.step == "set":
        for host in hosts:
            if host.instance_id in STAGING.hosts:
                answer = answers.get(host.instance_id)
                assert answer == READY or (host.draining and answer == BROKEN)
        assert all(answers[instance_id] == READY for instance_id in found.hosts)
    assert set(found.hosts) <= set(STAGING.hosts)


@given(some_hosts, some_answers, moments)
def test_it_always_goes_on_and_always_ends(
    hosts: list[Host], answers: dict[str, Answer], now: float
) -> None:
    staging, committing = (step(one, answers, now, hosts) for one in (STAGING, COMMITTING))
    assert staging.step in ("wait", "ask", "set", "fail")
    assert committing.step in ("wait", "done", "fail")
    if now >= ASKED_AT + ANSWER_SECONDS:
        assert staging.step in ("set", "fail")
    if now >= END:
        assert committing.step in ("done", "fail")
    assert staging.reason
    assert committing.reason


@given(some_hosts, some_answers, moments)
def test_done_means_that_every_host_that_was_told_and_is_there_has_said_so(
    hosts: list[Host], answers: dict[str, Answer], now: float
) -> None:
    found = step(COMMITTING, answers, now, hosts)
    if found.step == "done":
        for host in hosts:
            if host.instance_id in COMMITTING.hosts:
                assert answers[host.instance_id] == READY
    if found.step == "fail":
        assert "host i-" in found.reason


def test_a_switch_survives_the_state_machine() -> None:
    for switch in (STAGING, SET, COMMITTING):
        document: dict[str, Any] = asdict(switch)
        assert Switch.of(document) == switch
