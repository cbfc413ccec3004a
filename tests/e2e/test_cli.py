"""The AWS CLI as the only client, and what a sandbox leaves behind: nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.running import ROOT, Running, left_over


def _aws(sandbox: Running, *arguments: str) -> str:
    environment = {
        **os.environ,
        "AWS_ENDPOINT_URL": sandbox.endpoint,
        "AWS_DEFAULT_REGION": sandbox.about("region"),
        "AWS_ACCESS_KEY_ID": "cli",
        "AWS_SECRET_ACCESS_KEY": "cli",
        "AWS_PAGER": "",
    }
    command = [str(Path(sys.executable).parent / "aws"), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_deployment_with_nothing_but_the_aws_cli(sandbox: Running) -> None:
    sandbox.push("v1")
    sandbox.push("v2", command="python -m sandbox.app")
    old = sandbox.live()
    arn = _aws(
        sandbox,
        *["stepfunctions", "start-execution", "--name", "by-cli"],
        *["--state-machine-arn", sandbox.about("state_machine_arn")],
        *["--input", "file://events/deploy.json", "--query", "executionArn", "--output", "text"],
    )
    describe = ["stepfunctions", "describe-execution", "--execution-arn", arn]
    for _ in range(60):
        status = _aws(sandbox, *describe, "--query", "status", "--output", "text")
        if status != "RUNNING":
            break
    assert status == "SUCCEEDED"
    balancer = _aws(
        sandbox,
        *["elbv2", "describe-load-balancers", "--names", "web", "--output", "text"],
        *["--query", "LoadBalancers[0].LoadBalancerArn"],
    )
    listeners = json.loads(
        _aws(sandbox, "elbv2", "describe-listeners", "--load-balancer-arn", balancer)
    )["Listeners"]
    (listener,) = (one for one in listeners if one["Port"] == 8080)
    live = [
        group["TargetGroupArn"].split("/")[1]
        for group in listener["DefaultActions"][0]["ForwardConfig"]["TargetGroups"]
        if group["Weight"]
    ]
    assert live == ["web-green" if old == "blue" else "web-blue"]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_nothing_is_left_of_a_sandbox(
    tmp_path: Path, spare_network: str, how: signal.Signals
) -> None:
    running = Running(tmp_path, spare_network)
    running.start()
    assert running.deploy("v1").succeeded
    assert running.stop(how) == 0
    assert left_over(spare_network) == []
    assert list((tmp_path / "tmp").iterdir()) == []
    assert not (tmp_path / "sandbox.json").exists()


def test_nothing_is_left_of_a_sandbox_that_is_killed(tmp_path: Path, spare_network: str) -> None:
    running = Running(tmp_path, spare_network)
    running.start()
    assert running.deploy("v1").succeeded
    running.stop(signal.SIGKILL)
    for _ in range(50):
        if not left_over(spare_network):
            break
        time.sleep(0.1)
    assert left_over(spare_network) == []
    assert list((tmp_path / "tmp").iterdir()) == []
