"""State RequestApproval: keep the task token, and say what waits for a person.

Step Functions waits until the token is answered: by Promote with SendTaskSuccess, or by
PlanRollBack, for an abort, with SendTaskFailure.
https://docs.aws.amazon.com/step-functions/latest/dg/connect-to-resource.html#connect-wait-token
"""

from __future__ import annotations

import datetime
from typing import Any

from bluegreen.announcement import Announcement
from bluegreen.deployment import parse
from runtime import announcements
from runtime.invocation import Invocation, task

_WITHOUT_ANSWER = {
    "approve": "without an answer it goes on then",
    "reject": "without an answer it is rolled back then",
}


@task
def handler(invocation: Invocation) -> dict[str, Any]:
    """The event's ``token`` answers the request. What is answered here goes nowhere.

    Asked again with another token, people are not told again. Raises LockLost.
    """
    deployment = parse(invocation.data)
    approval = deployment.configuration.approval
    assert approval
    until = invocation.now + approval.timeout_seconds
    # Nothing renews the lease while it waits.
    invocation.store.prove(deployment, until)
    invocation.store.ask_approval(deployment, invocation.event["token"])
    announcements.tell(
        invocation.settings,
        Announcement.about(
            deployment,
            "waiting",
            invocation.now,
            reason=f"{deployment.to_color} is healthy and has no traffic yet; it waits until "
            f"{_shown(until)}, {_WITHOUT_ANSWER[approval.on_timeout]}",
            execution_arn=invocation.execution_arn,
        ),
    )
    return {"until": until}


def _shown(moment: float) -> str:
    return datetime.datetime.fromtimestamp(moment, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
