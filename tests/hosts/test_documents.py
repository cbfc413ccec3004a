"""The SSM documents: what they let through, and what they run."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from hosts import ecs_bluegreen_host as program
from tests.hosts.machine import (
    DOCUMENTS,
    PROGRAM,
    Machine,
    moments,
    next_generation,
)
from tools import host_program

PATTERNS = {
    "Service": program.SERVICE,
    "Generation": program.GENERATION,
    "Blue": program.WEIGHT,
    "Green": program.WEIGHT,
    "Expected": program.EXPECTED,
    "BlueTask": program.TASK,
    "GreenTask": program.TASK,
    "At": program.MOMENT,
    "NotAfter": program.MOMENT,
    "Port": program.PORT,
    "BluePort": program.PORT,
    "GreenPort": program.PORT,
    "StatusPort": program.PORT,
    "Container": program.CONTAINER,
    "ContainerPort": program.PORT,
    "ProxyContainer": program.CONTAINER,
    "HealthPath": program.HEALTH_PATH,
}
NAMES = ("report", "stage", "commit", "check", "install")
MAX_BYTES = 64 * 1024


def document(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((DOCUMENTS / f"{name}.yaml").read_text())
    return content


def script(name: str, **values: str) -> str:
    """What a document runs, as the SSM agent puts it together."""
    content = document(name)
    given = {key: item.get("default") for key, item in content["parameters"].items()} | values
    lines = "\n".join(content["mainSteps"][0]["inputs"]["runCommand"])
    return re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda match: given[match[1]], lines)


def run(host: Machine, name: str, **values: str) -> tuple[int, dict[str, Any]]:
    text = script(name, Service="web", **values)
    command = ["sh", "-c", text]
    done = subprocess.run(
        command, env=host.environment, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout)


@pytest.mark.parametrize("name", NAMES)
def test_parameters(name: str) -> None:
    for key, declared in document(name)["parameters"].items():
        if "allowedValues" in declared:
            continue
        pattern = declared["allowedPattern"]
        # The program checks the same, in case the pattern is not what it is taken for.
        inner = PATTERNS[key]
        assert pattern in (f"^{inner}$", f"^({inner})$")
        for bad in ("'", '"', ";", "$(id)", "`id`", "a\nb", "../", "a b", "|", "&&", "\\"):
            assert not re.fullmatch(pattern, bad)
            if (key, bad) != ("HealthPath", "../"):  # of a URL, not of a file
                assert not re.fullmatch(pattern, f"{declared.get('default', '1')}{bad}")
        if "default" in declared:
            assert re.fullmatch(pattern, declared["default"])


@pytest.mark.parametrize("name", NAMES)
def test_what_a_parameter_is_pasted_into_is_quoted(name: str) -> None:
    text = "\n".join(document(name)["mainSteps"][0]["inputs"]["runCommand"])
    placeholders = re.findall(r".?\{\{\w+\}\}.?", text)
    assert placeholders
    assert all(found.startswith("'") and found.endswith("'") for found in placeholders)
    assert set(re.findall(r"\{\{(\w+)\}\}", text)) == set(document(name)["parameters"])


@pytest.mark.parametrize("name", NAMES)
def test_fits_into_a_document(name: str) -> None:
    assert len(json.dumps(document(name))) < MAX_BYTES


def test_a_switch_by_documents(host: Machine) -> None:
    values = {
        "Generation": str(next_generation()),
        "Blue": "0",
        "Green": "100",
        "Expected": "none",
    }
    code, said = run(host, "stage", **values)
    assert (code, said["staged"]) == (0, int(values["Generation"]))
    _, at, _, not_after = moments(0.4)
    code, said = run(host, "commit", **values, At=at, NotAfter=not_after)
    assert (code, said["weights"]) == (0, {"blue": 0, "green": 100})
    assert host.get() == (200, "green")
    assert run(host, "report")[1]["generation"] == int(values["Generation"])
    code, said = run(host, "stage", **values)
    assert code == 1
    assert "is not newer" in said["error"]


def test_check_says_what_is_missing(host: Machine) -> None:
    host.start_agent()
    host.set_parameter(generation=next_generation(), blue=0, green=100, at=0, tasks={})
    code, said = run(host, "check")
    # On a machine without the units of the install document, at least these.
    units = {f"ecs-bluegreen-{name}@web.service" for name in ("restore", host.proxy)}
    assert code == 1
    assert units == {line.split()[0].rstrip(":") for line in said["missing"] if "ecs-blue" in line}
    assert not [line for line in said["missing"] if "does not run" in line or "SSM" in line]

    host.kill_proxy()
    host.fail_parameter("An error occurred (AccessDeniedException)")
    assert host.agent is not None
    host.agent.arn = None
    missing = "\n".join(run(host, "check")[1]["missing"])
    assert f"{host.proxy} does not run" in missing
    assert "/bluegreen/hosts/web cannot be read: An error occurred (AccessDenied" in missing
    assert "has not registered" in missing
    host.start_proxy()


def test_check_where_nothing_is_installed(tmp_path: Path) -> None:
    text = script("check", Service="web")
    done = subprocess.run(
        ["/bin/sh", "-c", text], env={"PATH": str(tmp_path)}, capture_output=True, check=False
    )
    assert done.returncode == 1
    assert "run the install document" in json.loads(done.stdout)["missing"][0]


def test_the_install_document_carries_the_program() -> None:
    text = host_program.CARRIERS[0].document.read_text()
    assert host_program.carried(text) == PROGRAM.read_bytes()
    again = host_program.with_program(text, b"another")
    assert host_program.carried(again) == b"another"


def test_the_program_can_stand_in_a_document() -> None:
    assert "{" + "{" not in PROGRAM.read_text()


@pytest.mark.parametrize("proxy", ["nginx", "haproxy"])
@pytest.mark.parametrize("container", ["", "proxy"])
def test_install(proxy: str, container: str, tmp_path: Path) -> None:
    """The script of the install document, with programs that note what they are told."""
    for name in ("dnf", "systemctl", "mv", "chmod"):
        (tmp_path / name).write_text(f'#!/bin/sh\necho "{name} $*" >>{tmp_path}/log\n')
        (tmp_path / name).chmod(0o755)
    values = {"Service": "web", "Proxy": proxy, "Port": "8080", "ProxyContainer": container}
    ports = {"BluePort": "18081", "GreenPort": "18082"}
    text = script("install", **values, **ports)
    for outside in ("/usr/local/bin/", "/etc/systemd/system/"):
        text = text.replace(outside, f"{tmp_path}/")
    home = tmp_path / "h"  # HAProxy's socket below it has to have a short path
    home.mkdir()
    path = f"{tmp_path}:/usr/bin:/bin"
    wrapper = tmp_path / "ecs-bluegreen-host"
    wrapper.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S {PROGRAM} "$@"\n')
    wrapper.chmod(0o755)
    done = subprocess.run(
        ["/bin/sh", "-c", text],
        env={"PATH": path, "ECS_BLUEGREEN_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / ".ecs-bluegreen-host").read_bytes() == PROGRAM.read_bytes()
    settings = json.loads((home / "web" / "host.json").read_text())
    assert (settings["proxy"], settings["proxy_container"]) == (proxy, container)
    log = (tmp_path / "log").read_text()
    units = "ecs-bluegreen-restore@web.service"
    if not container:
        units += f" ecs-bluegreen-{proxy}@web.service"
    assert f"systemctl enable --quiet {units}\n" in log
    assert (f"awscli-2 {proxy}\n" in log) is not bool(container)
    assert ("try-reload-or-restart" in log) is not bool(container)
    for name in ("restore", "watch", "nginx", "haproxy"):
        unit = (tmp_path / f"ecs-bluegreen-{name}@.service").read_text()
        assert f"ExecStart={tmp_path}/ecs-bluegreen-host" in unit
        assert "WantedBy=multi-user.target" in unit
    assert "KillSignal=SIGQUIT" in (tmp_path / "ecs-bluegreen-nginx@.service").read_text()
