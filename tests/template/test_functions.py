from __future__ import annotations

import ast
from typing import Any

import pytest

from runtime.settings import MetricsSettings, Settings
from tests.template.model import ROOT, Template


def defaults(template: Template, variables: dict[str, Any]) -> dict[str, str]:
    """Environment variables as they are with every parameter at its default."""

    def value(written: Any) -> str:
        name = written.get("Ref") if isinstance(written, dict) else None
        if name in template.parameters:
            return str(template.parameters[name]["Default"])
        return f"<{name}>" if name else str(written)

    return {name: value(written) for name, written in variables.items()}


def test_every_function_is_a_module_with_a_handler(template: Template) -> None:
    modules = {}
    for logical_id, function in template.functions().items():
        module, name = function["Handler"].split(".")
        assert name == "handler", logical_id
        modules[logical_id] = module
        tree = ast.parse((ROOT / "functions" / f"{module}.py").read_text())
        assert any(isinstance(node, ast.FunctionDef) and node.name == name for node in tree.body), (
            f"functions/{module}.py has no {name}"
        )
    # RegisterTaskDefinitionFunction runs register_task_definition.
    assert {
        logical_id: module.replace("_", "") + "function" for logical_id, module in modules.items()
    } == {logical_id: logical_id.lower() for logical_id in modules}


def test_no_module_of_the_workflow_is_left_out(template: Template) -> None:
    handlers = {function["Handler"].split(".")[0] for function in template.functions().values()}

    assert handlers == {path.stem for path in (ROOT / "functions").glob("*.py")}


def test_runtime(template: Template) -> None:
    for logical_id, function in template.functions().items():
        assert function["Runtime"] == "python3.13", logical_id
        assert function["Architectures"] == ["arm64"], logical_id
        assert function["TracingConfig"] == {"Mode": "Active"}, logical_id
        most = 30 if logical_id in template.state_functions() else 60
        assert function["Timeout"] <= most, f"{logical_id}: a Lambda answers in seconds"


def test_the_environment_has_all_settings(template: Template) -> None:
    for logical_id, function in template.functions().items():
        variables = defaults(template, function["Environment"]["Variables"])
        settings = Settings.from_env(variables)

        assert settings.table == "<DeploymentsTable>", logical_id
        assert settings.parameter_prefix == "/bluegreen/services", logical_id
        if logical_id in template.state_functions():
            assert settings.settle_seconds > function["Timeout"], (
                f"{logical_id}: what a lost execution had running may still write"
            )
        assert settings.announcements_queue == "<AnnouncementsQueue>", logical_id
        assert settings.history_days == 400, logical_id
        assert settings.mackerel_url == "https://api.mackerelio.com", logical_id
        assert settings.mackerel_key.startswith("/"), logical_id
        assert MetricsSettings.from_env(variables).table == "<MetricsTable>", logical_id
        assert variables["POWERTOOLS_SERVICE_NAME"] == "ecs-bluegreen"
        assert variables["POWERTOOLS_LOG_LEVEL"] == "INFO"


@pytest.mark.parametrize(
    ("variable", "setting", "value"),
    [
        ("STATE_MACHINE_ARN", "state_machine_arn", {"Ref": "BlueGreenDeployment"}),
        ("TOPIC_ARN", "topic", {"Ref": "DeploymentsTopic"}),
        ("SLACK_PARAMETER_PREFIX", "slack_prefix", "/bluegreen/slack"),
        ("SLACK_URL", "slack_url", {"Ref": "SlackUrl"}),
    ],
)
def test_who_needs_a_setting_has_it_and_nobody_else(
    template: Template, variable: str, setting: str, value: Any
) -> None:
    told = {
        function["Handler"].split(".")[0]: function["Environment"]["Variables"][variable]
        for function in template.functions().values()
        if variable in function["Environment"]["Variables"]
    }
    needing = {
        path.stem
        for path in (ROOT / "functions").glob("*.py")
        if f"settings.{setting}" in path.read_text()
    }

    assert needing
    assert told == dict.fromkeys(needing, value)


def test_every_function_has_its_log_group_with_retention(template: Template) -> None:
    groups = [function["LoggingConfig"]["LogGroup"] for function in template.functions().values()]

    assert len({group["Ref"] for group in groups}) == len(groups)
    for logical_id, function in template.functions().items():
        group = template.resource(function["LoggingConfig"]["LogGroup"]["Ref"])["Properties"]
        # ObservabilityPolicy lets functions write to log groups of this stack only.
        name = logical_id.removesuffix("Function")
        assert group["LogGroupName"] == {"Fn::Sub": f"/aws/lambda/${{AWS::StackName}}/{name}"}


def test_every_log_group_has_a_retention(template: Template) -> None:
    groups = template.of_type("AWS::Logs::LogGroup")

    assert len(groups) == len(template.functions()) + len(template.state_machines())
    for logical_id, group in groups.items():
        assert group["RetentionInDays"] == {"Ref": "LogRetentionDays"}, logical_id


def test_the_probing_functions_can_be_put_into_a_vpc(template: Template) -> None:
    in_vpc = {
        logical_id: function["VpcConfig"]["Fn::If"][0]
        for logical_id, function in template.functions().items()
        if "VpcConfig" in function
    }
    probing = {
        f"{path.stem.replace('_', ' ').title().replace(' ', '')}Function"
        for path in (ROOT / "functions").glob("*.py")
        if "probe.ask(" in path.read_text()
    }

    assert in_vpc == dict.fromkeys(probing, "ProbesInVpc")
