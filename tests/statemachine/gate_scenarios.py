"""Ways through the gates of a deployment: hooks, migration, approval, steps; and dry runs,
promotions and what comes after the end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bluegreen.deployment import Gates
from tests.statemachine.interpreter import Answer, Raised, Said, Script, TooSlow
from tests.statemachine.scripts import (
    BAKE,
    BAKED,
    BAKING,
    BEGIN,
    BRANCH,
    DEPLOY_WEB,
    DRAIN,
    DRAINED,
    FAIL,
    HEALTH,
    HEALTHY,
    LATE,
    LIVE,
    MORE_HOSTS,
    NOT_YET,
    NOTHING_RESTORED,
    PLAN,
    PLANNED,
    REGISTER,
    REGISTERED,
    RESTORED,
    REVISION,
    ROLL_BACK,
    SHIFT,
    SHIFTED,
    START,
    STARTED,
    SUCCEED,
    TAKE_OVER,
    UNDO,
    Scenario,
    deploying,
    record,
    taken_over,
)

ASKING_HOOK = {"status": "waiting", "reason": "hook test says IN_PROGRESS", "wait_seconds": 11}
SAID_YES = {"status": "done", "reason": "1 hooks asked", "results": [], "wait_seconds": 1}
# What RunHooks answers says which hooks these were.
BEFORE_ASKING = {**ASKING_HOOK, "point": "before_shift", "step": 0}
BEFORE_YES = {**SAID_YES, "point": "before_shift", "step": 0}
FIRST_YES = {**SAID_YES, "point": "before_deployment", "step": 0}
AFTER_ASKING = {**ASKING_HOOK, "point": "after_shift", "step": 0}
AFTER_YES = {**SAID_YES, "point": "after_shift", "step": 0}
SAID_NO = Raised("HookFailed", "hook test said FAILED: 3 of 7 checks")
MIGRATION = {
    "task_definition": "arn:aws:ecs:ap-northeast-1:123456789012:task-definition/web:2",
    "cluster": "web",
    "launch_type": "EC2",
    "overrides": {"ContainerOverrides": [{"Name": "web", "Command": ["migrate"]}]},
    "timeout_seconds": 900,
}
TO_MIGRATE = {**REVISION, "migration": MIGRATION}
NETWORK = {"AwsvpcConfiguration": {"Subnets": ["subnet-1"], "AssignPublicIp": "DISABLED"}}
TO_MIGRATE_IN_VPC = {**REVISION, "migration": {**MIGRATION, "network": NETWORK}}
MIGRATED = {"TaskArn": "arn:aws:ecs:ap-northeast-1:123456789012:task/web/1", "StopCode": "x"}
NOT_MIGRATED = Raised("States.TaskFailed", '{"TaskArn": "…", "StoppedReason": "exit code 1"}')
EXPLAINED = Raised("MigrationFailed", "the migration (web) failed: exit code 1")
APPROVED = Said({"approved": True, "by": "kim", "at": 1000.0})
PROVED = {**SHIFTED, "status": "proved", "proved_at": 1010.0}
BEFORE_NEXT = {**BAKING, "status": "before_next", "step": 0}
NEXT = {**BAKING, "status": "next_step", "step": 1}
PLAN_OF_A_DRY_RUN = {"changes": ["register a revision of web"]}
HELD = {"status": "done", "held": True, "reason": "its release says how it ends"}

TEST = "TestIdleColor IsIdleColorTested"
ASK = f"RequestApproval IsApproved {HEALTH}"
RUN = "RunMigration"
BEFORE = "BeforeShift MayShift LookAgain"
BEFORE_WAIT = "BeforeShift MayShift WaitToShift LookAgain"


def gates(*names: str) -> dict[str, Any]:
    """PlanDeployment's answer for a service with these gates."""
    return {**PLANNED, "gates": {**Gates().model_dump(), **dict.fromkeys(names, True)}}


def approval(on_timeout: str) -> dict[str, Any]:
    """PlanDeployment's answer for a service where somebody has a second to approve."""
    asked = {"timeout_seconds": 1, "on_timeout": on_timeout}
    return {**gates("approval"), "configuration": {"approval": asked}}


def undone(plan: Mapping[str, Any], reached: int, **answers: Sequence[Answer]) -> Script:
    """A deployment that is undone after so many of the usual states."""
    script = dict(deploying(PlanDeployment=[plan]))
    states = [name for name in script if name != "RecordOutcome"]
    return {
        **{name: one for name, one in script.items() if name not in states[reached:]},
        **answers,
        "RollBack": [RESTORED],
        "RecordOutcome": record,
    }


_EVERY_GATE = {
    **gates(
        "before_deployment",
        "migration",
        "idle_healthy",
        "approval",
        "before_shift",
        "after_shift",
        "after_deployment",
    ),
    "configuration": {"approval": {"timeout_seconds": 60, "on_timeout": "reject"}},
}

GATES = [
    Scenario(
        "every gate is stopped at",
        DEPLOY_WEB,
        deploying(
            PlanDeployment=[_EVERY_GATE],
            BeforeDeployment=[ASKING_HOOK, FIRST_YES],
            RegisterTaskDefinition=[TO_MIGRATE],
            RunMigration=[MIGRATED],
            CheckHealth=[HEALTHY] * 5,
            TestIdleColor=[ASKING_HOOK, SAID_YES],
            RequestApproval=[APPROVED],
            BeforeShift=[BEFORE_ASKING, BEFORE_YES, BEFORE_ASKING, BEFORE_YES],
            ShiftTraffic=[{**SHIFTED, "percent": 10}, {**SHIFTED, "step": 1}],
            CheckBake=[
                PROVED,
                PROVED,
                BEFORE_NEXT,
                BEFORE_NEXT,
                NEXT,
                {**PROVED, "step": 1},
                {**BAKED, "step": 1},
            ],
            AfterShift=[AFTER_ASKING, AFTER_YES, AFTER_YES],
            AfterDeployment=[ASKING_HOOK, SAID_YES],
        ),
        f"{BRANCH} BeforeDeployment MayBegin WaitToBegin BeforeDeployment MayBegin {REGISTERED} "
        f"{RUN} {START} {HEALTH} {TEST} WaitForTests {TEST} NoteTests {HEALTH} {ASK} "
        f"{BEFORE_WAIT} {HEALTH} {BEFORE} {HEALTH} {SHIFT} "
        f"{BAKE} AfterShift IsShiftConfirmed WaitForConfirmation "
        f"{BAKE} AfterShift IsShiftConfirmed "
        f"{BAKE} {BEFORE_WAIT} {BAKE} {BEFORE} {BAKE} "
        f"{SHIFT} {BAKE} AfterShift IsShiftConfirmed {BAKE} Baked "
        f"{DRAIN} RecordOutcome AreHooksLast AfterDeployment IsAllSaid WaitForLastHooks "
        "AfterDeployment IsAllSaid HowDidItEnd Succeeded",
        "succeeded",
        slept=[11] * 6,
    ),
    Scenario(
        "no hook before the deployment, but others",
        DEPLOY_WEB,
        deploying(
            PlanDeployment=[gates("after_shift", "after_deployment")],
            CheckBake=[PROVED, BAKED],
            AfterShift=[SAID_YES],
            AfterDeployment=[SAID_YES],
        ),
        f"{REGISTER} {START} {HEALTH} {SHIFT} {BAKE} AfterShift IsShiftConfirmed {BAKE} Baked "
        f"{DRAIN} RecordOutcome AreHooksLast AfterDeployment IsAllSaid HowDidItEnd Succeeded",
        "succeeded",
    ),
    *(
        Scenario(
            f"a hook says no: {state}",
            DEPLOY_WEB,
            undone(gates(gate), reached, **answers, **{state: [SAID_NO]}),
            f"{path} {state} {UNDO} {FAIL}",
            "rolled_back",
            "FAILED",
            "HookFailed",
            "hook test said FAILED: 3 of 7 checks\nall as before",
        )
        for state, gate, reached, answers, path in (
            ("BeforeDeployment", "before_deployment", 1, {}, BRANCH),
            ("TestIdleColor", "idle_healthy", 4, {}, f"{REGISTER} {START} {HEALTH}"),
            ("BeforeShift", "before_shift", 4, {}, f"{REGISTER} {START} {HEALTH}"),
            (
                "AfterShift",
                "after_shift",
                5,
                {"CheckBake": [PROVED]},
                f"{REGISTER} {START} {HEALTH} {SHIFT} {BAKE}",
            ),
        )
    ),
    Scenario(
        "a migration in a network of its own",
        DEPLOY_WEB,
        deploying(RegisterTaskDefinition=[TO_MIGRATE_IN_VPC], RunMigrationInVpc=[MIGRATED]),
        f"{REGISTER} RunMigrationInVpc {START} {HEALTH} {SHIFT} {BAKE} Baked {DRAIN} {SUCCEED}",
        "succeeded",
    ),
    *(
        Scenario(
            f"a migration fails: {name}",
            DEPLOY_WEB,
            undone(
                gates("migration"),
                1,
                RegisterTaskDefinition=[revision],
                ExplainMigration=[EXPLAINED],
                **{state: [error]},
            ),
            f"{REGISTER} {state} ExplainMigration {UNDO} {FAIL}",
            "rolled_back",
            "FAILED",
            "MigrationFailed",
            "the migration (web) failed: exit code 1\nall as before",
        )
        for name, state, revision, error in (
            ("by its exit code", "RunMigration", TO_MIGRATE, NOT_MIGRATED),
            ("its time is up", "RunMigration", TO_MIGRATE, TooSlow()),
            ("it cannot be run", "RunMigration", TO_MIGRATE, Raised("AmazonECS.Unknown", "{}")),
            ("ECS refuses it", "RunMigration", TO_MIGRATE, Raised("ECS.ClientException", "no")),
            ("in a network", "RunMigrationInVpc", TO_MIGRATE_IN_VPC, NOT_MIGRATED),
        )
    ),
    Scenario(
        "a migration fails, and nobody can say why",
        DEPLOY_WEB,
        undone(
            gates("migration"),
            1,
            RegisterTaskDefinition=[TO_MIGRATE],
            RunMigration=[NOT_MIGRATED],
            ExplainMigration=[{"reason": "it answers instead of raising"}],
        ),
        f"{REGISTER} {RUN} ExplainMigration MigrationFailed {UNDO} {FAIL}",
        "rolled_back",
        "FAILED",
        "MigrationFailed",
        "the migration task failed; nothing was shifted\nall as before",
    ),
    Scenario(
        "a person says no",
        DEPLOY_WEB,
        undone(
            approval("approve"),
            4,
            RequestApproval=[Said(error="NotApproved", cause="aborted by hand (kim)")],
        ),
        f"{REGISTER} {START} {HEALTH} RequestApproval {UNDO} {FAIL}",
        "rolled_back",
        "FAILED",
        "NotApproved",
        "aborted by hand (kim)\nall as before",
    ),
    *(
        Scenario(
            f"a person answers something else: {said}",
            DEPLOY_WEB,
            undone(approval("approve"), 4, RequestApproval=[Said(said)]),
            f"{REGISTER} {START} {HEALTH} RequestApproval IsApproved NotApproved {UNDO} {FAIL}",
            "rolled_back",
            "FAILED",
            "NotApproved",
            "the answer to the request for approval was ",
        )
        for said in ({"approved": False}, {"approved": "true"}, {}, "yes", True, None)
    ),
    Scenario(
        "nobody says anything, and that is no",
        DEPLOY_WEB,
        undone(approval("reject"), 4, RequestApproval=[{"until": 1060.0}]),
        f"{REGISTER} {START} {HEALTH} RequestApproval WhatWithoutAnswer NotApprovedInTime "
        f"{UNDO} {FAIL}",
        "rolled_back",
        "FAILED",
        "NotApproved",
        "nobody answered the request for approval within 1 s\nall as before",
    ),
    Scenario(
        "nobody says anything, and that is yes",
        DEPLOY_WEB,
        deploying(
            PlanDeployment=[approval("approve")],
            RequestApproval=[{"until": 1060.0}],
            CheckHealth=[HEALTHY, HEALTHY],
        ),
        f"{REGISTER} {START} {HEALTH} RequestApproval WhatWithoutAnswer {HEALTH} {SHIFT} {BAKE} "
        f"Baked {DRAIN} {SUCCEED}",
        "succeeded",
    ),
    Scenario(
        "a host that comes late asks nobody again",
        DEPLOY_WEB,
        deploying(
            PlanDeployment=[gates("before_shift")],
            CheckHealth=[HEALTHY] * 2,
            BeforeShift=[BEFORE_YES],
            ShiftTraffic=[SHIFTED, SHIFTED],
            CheckBake=[LATE, BAKED],
        ),
        f"{REGISTER} {START} {HEALTH} {BEFORE} {HEALTH} {SHIFT} {BAKE} {SHIFT} {BAKE} Baked "
        f"{DRAIN} {SUCCEED}",
        "succeeded",
    ),
    Scenario(
        "a colour that fell ill while hooks before its first shift were asked gets no traffic",
        DEPLOY_WEB,
        deploying(
            PlanDeployment=[gates("before_shift")],
            CheckHealth=[HEALTHY, NOT_YET, HEALTHY],
            BeforeShift=[BEFORE_YES],
        ),
        f"{REGISTER} {START} {HEALTH} {BEFORE} {HEALTH} WaitForHealth {HEALTH} {SHIFT} {BAKE} "
        f"Baked {DRAIN} {SUCCEED}",
        "succeeded",
        slept=[7],
    ),
    Scenario(
        "hooks before the deployment are none before the shift",
        DEPLOY_WEB,
        deploying(
            PlanDeployment=[gates("before_deployment", "before_shift")],
            BeforeDeployment=[FIRST_YES],
            CheckHealth=[HEALTHY] * 2,
            BeforeShift=[BEFORE_YES],
        ),
        f"{BRANCH} BeforeDeployment MayBegin {REGISTERED} {START} {HEALTH} {BEFORE} {HEALTH} "
        f"{SHIFT} {BAKE} Baked {DRAIN} {SUCCEED}",
        "succeeded",
    ),
    Scenario(
        "what turns bad while hooks after a shift are asked is undone",
        DEPLOY_WEB,
        undone(
            gates("after_shift"),
            5,
            CheckBake=[PROVED, Raised("BakeFailed", "with 10 %: alarm web-5xx")],
            AfterShift=[AFTER_ASKING],
        ),
        f"{REGISTER} {START} {HEALTH} {SHIFT} {BAKE} AfterShift IsShiftConfirmed "
        f"WaitForConfirmation CheckBake {UNDO} {FAIL}",
        "rolled_back",
        "FAILED",
        "BakeFailed",
        "with 10 %: alarm web-5xx\nall as before",
        slept=[11],
    ),
    Scenario(
        "what turns bad while hooks before the next shift are asked is undone",
        DEPLOY_WEB,
        {
            **undone(
                gates("before_shift"),
                5,
                CheckBake=[BEFORE_NEXT, Raised("BakeFailed", "with 10 %: alarm web-5xx")],
                BeforeShift=[BEFORE_YES, BEFORE_ASKING],
            ),
            "CheckHealth": [HEALTHY] * 2,
        },
        f"{REGISTER} {START} {HEALTH} {BEFORE} {HEALTH} {SHIFT} {BAKE} {BEFORE_WAIT} CheckBake "
        f"{UNDO} {FAIL}",
        "rolled_back",
        "FAILED",
        "BakeFailed",
        "with 10 %: alarm web-5xx\nall as before",
        slept=[11],
    ),
    Scenario(
        "more hosts than tasks under traffic ask nobody again",
        DEPLOY_WEB,
        deploying(
            PlanDeployment=[{**_EVERY_GATE, **gates("idle_healthy", "approval", "before_shift")}],
            StartIdleColor=[STARTED, {**STARTED, "desired_count": 3}],
            CheckHealth=[HEALTHY] * 4,
            TestIdleColor=[SAID_YES],
            RequestApproval=[APPROVED],
            BeforeShift=[BEFORE_YES],
            CheckBake=[MORE_HOSTS, BAKED],
        ),
        f"{REGISTER} {START} {HEALTH} {TEST} NoteTests {HEALTH} {ASK} {BEFORE} {HEALTH} "
        f"{SHIFT} {BAKE} {START} {BAKE} Baked {DRAIN} {SUCCEED}",
        "succeeded",
    ),
    # After the end
    Scenario(
        "hooks are told of a failure too",
        DEPLOY_WEB,
        {
            **undone(gates("after_deployment"), 3),
            "StartIdleColor": [Raised("IdleColorUnhealthy", "no room")],
            "AfterDeployment": [SAID_YES],
        },
        f"{REGISTER} StartIdleColor {UNDO} RecordOutcome AreHooksLast AfterDeployment IsAllSaid "
        "HowDidItEnd Failed",
        "rolled_back",
        "FAILED",
        "IdleColorUnhealthy",
        "no room\nall as before",
    ),
    Scenario(
        "what was taken over has no hooks after it: they would be told an end that it had not",
        DEPLOY_WEB,
        {
            **undone(gates("after_deployment"), 3),
            "StartIdleColor": [Raised("LockLost", "taken over")],
            "RecordOutcome": lambda data: {**record(data), "ours": False},
            "AfterDeployment": [],
        },
        f"{REGISTER} StartIdleColor {UNDO} {FAIL}",
        "rolled_back",
        "FAILED",
        "LockLost",
        "taken over\nall as before",
    ),
    Scenario(
        "hooks that fail after the end change nothing",
        DEPLOY_WEB,
        deploying(
            PlanDeployment=[gates("after_deployment")],
            AfterDeployment=[ASKING_HOOK, Raised("AwsRefused", "lambda:InvokeFunction")],
        ),
        f"{LIVE} {DRAIN} RecordOutcome AreHooksLast AfterDeployment IsAllSaid WaitForLastHooks "
        "AfterDeployment HowDidItEnd Succeeded",
        "succeeded",
        slept=[11],
    ),
    Scenario(
        "nothing to do has no hooks after it",
        DEPLOY_WEB,
        {
            "PlanDeployment": [{**gates("after_deployment"), "decision": "nothing_to_do"}],
            "RecordOutcome": record,
        },
        f"{PLAN} {SUCCEED}",
        "nothing_to_do",
    ),
    Scenario(
        "what a release holds has not ended",
        {**DEPLOY_WEB, "release": "arn:aws:states:…:execution:ReleaseServices:r-1"},
        deploying(PlanDeployment=[gates("after_deployment")], DrainOldColor=[HELD]),
        f"{LIVE} {DRAIN} {SUCCEED}",
        "held",
    ),
    # What is asked for besides
    Scenario(
        "a dry run",
        {**DEPLOY_WEB, "dry_run": True},
        {"PlanDeployment": [{"decision": "dry_run", "plan": PLAN_OF_A_DRY_RUN}]},
        f"{PLAN} Planned",
        None,
        output=PLAN_OF_A_DRY_RUN,
    ),
    Scenario(
        "a dry run of a rollback",
        {**ROLL_BACK, "dry_run": True},
        {
            "PlanRollBack": lambda data: {
                **taken_over("dry_run", settle_seconds=0)(data),
                "deployment": {"decision": "dry_run", "plan": PLAN_OF_A_DRY_RUN},
            }
        },
        f"{TAKE_OVER} Planned",
        None,
        slept=[0],
        output=PLAN_OF_A_DRY_RUN,
    ),
    Scenario(
        "a step is promoted",
        {"action": "promote", "deployment_id": "d-0"},
        {"Promote": [{"deployment_id": "d-0", "promoted": "step", "step": 0, "by": "kim"}]},
        f"{BEGIN} Promote Promoted",
        None,
        output={"deployment_id": "d-0", "promoted": "step", "step": 0, "by": "kim"},
    ),
    Scenario(
        "there is nothing to promote",
        {"action": "promote", "deployment_id": "d-0"},
        {"Promote": [Raised("DeploymentRefused", "it has ended: succeeded")]},
        f"{BEGIN} Promote",
        None,
        "FAILED",
        "DeploymentRefused",
        "it has ended: succeeded",
    ),
    Scenario(
        "a running deployment is aborted",
        {"action": "abort", "deployment_id": "d-0"},
        {
            "PlanRollBack": taken_over("roll_back"),
            "RollBack": [RESTORED],
            "RecordOutcome": record,
        },
        f"{TAKE_OVER} {UNDO} {SUCCEED}",
        "rolled_back",
        slept=[35],
    ),
    Scenario(
        "what a release has held is finished",
        {"action": "finish", "deployment_id": "d-0"},
        {
            "PlanRollBack": taken_over("finish", settle_seconds=0),
            "DrainOldColor": [DRAINED],
            "RecordOutcome": record,
        },
        f"{TAKE_OVER} {DRAIN} {SUCCEED}",
        "succeeded",
        slept=[0],
    ),
    Scenario(
        "what was live before is deployed again",
        {"action": "rollback", "service": "web"},
        {
            **deploying(),
            "PlanRollBack": [
                {
                    "request": {"action": "deploy", "service": "web", "like": "d-0"},
                    "recovery": {"direction": "redeploy", "settle_seconds": 0, "reason": "back"},
                }
            ],
        },
        f"{TAKE_OVER} {LIVE.removeprefix(f'{BEGIN} ')} {DRAIN} {SUCCEED}",
        "succeeded",
        slept=[0],
    ),
    Scenario(
        "what was live before cannot be deployed again",
        {"action": "rollback", "service": "web"},
        {
            "PlanRollBack": [
                {
                    "request": {"action": "deploy", "service": "web", "like": "d-0"},
                    "recovery": {"direction": "redeploy", "settle_seconds": 0, "reason": "back"},
                }
            ],
            "PlanDeployment": [Raised("DeploymentRefused", "its image is gone")],
            "RollBack": [NOTHING_RESTORED],
            "RecordOutcome": record,
        },
        f"{TAKE_OVER} PlanDeployment {UNDO} {FAIL}",
        "refused",
        "FAILED",
        "DeploymentRefused",
        "its image is gone",
        slept=[0],
    ),
]
