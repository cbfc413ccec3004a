"""The document metrics.yaml: what it lets through, what it carries, and how it runs."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import re
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.hosts.conftest import needs
from tests.hosts.machine import DOCUMENTS, PORT, SYSTEM_PATH, Machine
from tests.hosts.trees import V2, V2_LAYOUTS, ListeningAgent, Said, Tree, task
from tools import host_program

MAX_BYTES = 64 * 1024
CARRIER = next(it for it in host_program.CARRIERS if it.document.name == "metrics.yaml")


def document() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((DOCUMENTS / "metrics.yaml").read_text())
    return content


def script(plugins: str = "") -> str:
    """What the document runs, as the SSM agent puts it together."""
    lines = "\n".join(document()["mainSteps"][0]["inputs"]["runCommand"])
    return re.sub(r"\{\{\s*Plugins\s*\}\}", lambda _: plugins, lines)


def run(
    agent: ListeningAgent,
    tree: Tree,
    *plugins: dict[str, Any],
    text: str = "",
    path: str = SYSTEM_PATH,
    home: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    parameter = base64.b64encode(json.dumps(plugins).encode()).decode() if plugins else ""
    environment = tree.environment(agent.where, PATH=path)
    if home is not None:
        environment["ECS_BLUEGREEN_HOME"] = str(home)
    return subprocess.run(
        ["sh", "-c", text or script(parameter)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        start_new_session=True,
    )


@pytest.fixture
def app(agent: ListeningAgent, tree: Tree) -> Tree:
    agent.tasks = [task(1, "app")]
    tree.add(V2, V2_LAYOUTS[0])
    return tree


def programs(tree: Tree) -> list[Path]:
    """The versions that are unpacked, and what is left of unpacking."""
    return sorted(path for path in metrics(tree).iterdir() if path.name != "lock")


def metrics(tree: Tree) -> Path:
    return tree.directory / "home" / ".metrics"


def test_its_parameter_cannot_end_the_string_it_is_in() -> None:
    (declared,) = document()["parameters"].values()
    pattern = declared["allowedPattern"]
    for good in ("", "YQ==", "a+/9" * 5000):
        assert re.fullmatch(pattern, good)
    for bad in ("'", '"', ";", "$(id)", "`id`", "a\nb", "a b", "|", "&", "\\", "a\n"):
        assert not re.fullmatch(pattern, bad)
    assert script("X").count("'X'") == 1


def test_fits_into_a_document() -> None:
    assert len(json.dumps(document())) < MAX_BYTES


def test_carries_the_programs() -> None:
    text = CARRIER.document.read_text()
    for word, path in CARRIER.programs.items():
        assert host_program.carried(text, word) == path.read_bytes()
    assert host_program.main(["--check"]) == 0


def test_another_program_makes_another_document() -> None:
    text = CARRIER.document.read_text()
    programs = {word: path.read_bytes() for word, path in CARRIER.programs.items()}
    assert host_program.up_to_date(text, programs) == text
    changed = host_program.up_to_date(text, programs | {"PLUGIN": b"another"})
    assert host_program.carried(changed, "PLUGIN") == b"another"
    assert host_program.carried(changed, "PROGRAM") == programs["PROGRAM"]
    versions = [re.findall("version=(.*)", it)[0] for it in (text, changed)]
    assert len(set(versions)) == 2
    assert host_program.up_to_date(changed, programs) == text


def test_unpacks_once(agent: ListeningAgent, app: Tree) -> None:
    for _ in range(2):
        done = run(agent, app)
        assert (done.returncode, done.stderr) == (0, "")
        assert Said(done.stdout.splitlines()).of("app")["g"]["memory.usage"] == 130023424
        (folder,) = programs(app)
        seen = (folder / "ecs_bluegreen_metrics.py").stat().st_ino
    assert (folder / "ecs_bluegreen_metrics.py").stat().st_ino == seen
    assert list((folder / "__pycache__").iterdir())
    assert folder.stat().st_mode & 0o077 == 0


def test_a_new_version_takes_the_place_of_the_old(agent: ListeningAgent, app: Tree) -> None:
    run(agent, app)
    (old,) = programs(app)
    newer = re.sub("version=.*", "version=0123456789ab", script())
    done = run(agent, app, text=newer)
    assert (done.returncode, done.stderr) == (0, "")
    assert [folder.name for folder in programs(app)] == ["program-0123456789ab"]
    assert not old.exists()


def test_what_is_not_whole_is_unpacked_again(agent: ListeningAgent, app: Tree) -> None:
    """As after a power cut, which may leave files without their content."""
    run(agent, app)
    (folder,) = programs(app)
    (folder / "whole").unlink()
    for file in folder.glob("*.py"):
        file.write_text("")
    shutil.rmtree(folder / "__pycache__")
    left = metrics(app) / "new.abcdef"
    (left / "bin").mkdir(parents=True)
    done = run(agent, app)
    assert (done.returncode, done.stderr) == (0, "")
    assert Said(done.stdout.splitlines()).head["containers"] == 1
    assert programs(app) == [folder]


@pytest.mark.parametrize("how", ["fails", "TERM", "HUP"])
def test_unpacking_that_fails_leaves_nothing(
    agent: ListeningAgent, app: Tree, tmp_path: Path, how: str
) -> None:
    broken = tmp_path / "bin"
    broken.mkdir()
    act = "exit 1" if how == "fails" else f"kill -{how} 0"
    (broken / "gunzip").write_text(f"#!/bin/sh\nhead -c 1000\n{act}\n")
    (broken / "gunzip").chmod(0o755)
    done = run(agent, app, path=f"{broken}:{SYSTEM_PATH}")
    assert done.returncode != 0
    assert programs(app) == []
    assert run(agent, app).returncode == 0


def test_a_machine_without_flock(agent: ListeningAgent, app: Tree, tmp_path: Path) -> None:
    broken = tmp_path / "bin"
    broken.mkdir()
    (broken / "flock").write_text("#!/bin/sh\nexit 127\n")
    (broken / "flock").chmod(0o755)
    done = run(agent, app, path=f"{broken}:{SYSTEM_PATH}")
    assert done.returncode == 0
    assert "there is no flock" in done.stderr
    assert Said(done.stdout.splitlines()).head["containers"] == 1


def test_the_home_is_open_and_what_is_its_own_is_not(agent: ListeningAgent, app: Tree) -> None:
    assert run(agent, app).returncode == 0
    home = metrics(app).parent
    assert home.stat().st_mode & 0o777 == 0o755
    assert metrics(app).stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o755, 0o700])
def test_a_proxy_on_a_machine_that_was_measured_before(
    agent: ListeningAgent, app: Tree, mode: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The workers of nginx, which are not root, reach what is theirs below the same home; also when
    something else has made the home.
    """
    needs("nginx")
    with Machine("nginx") as machine:
        home = machine.home / "lib"
        machine.environment["ECS_BLUEGREEN_HOME"] = str(home)
        monkeypatch.setenv("ECS_BLUEGREEN_HOME", str(home))
        machine.folder = home / "web"
        done = run(agent, app, home=home)
        assert done.returncode == 0
        if mode != 0o755:
            home.chmod(mode)
        machine.configure()
        machine.start_task("blue")
        machine.start_task("green")
        machine.start_proxy()
        machine.switch(100, 0)
        assert machine.get() == (200, "blue")
        # More than nginx keeps in memory: its workers write it to a file.
        body = b"x" * 900_000
        connection = http.client.HTTPConnection(machine.address, PORT, timeout=20)
        with contextlib.closing(connection):
            connection.request("GET", "/", body)
            assert connection.getresponse().status == 200


def test_commands_may_overlap(agent: ListeningAgent, app: Tree) -> None:
    results = []
    threads = [threading.Thread(target=lambda: results.append(run(agent, app))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [(done.returncode, done.stderr) for done in results] == [(0, "")] * 8
    assert len(programs(app)) == 1


def test_the_plugin_that_ships_with_it_is_found(agent: ListeningAgent, app: Tree) -> None:
    command = "mackerel-plugin-memcached -h >/dev/null && echo found 1 1"
    done = run(agent, app, {"name": "memcached", "container": "app", "command": command})
    said = Said(done.stdout.splitlines())
    assert (done.returncode, done.stderr, said.problems) == (0, "", [])
    assert said.plugins()[0]["values"] == [["found", 1]]


def test_what_goes_wrong_is_said_on_standard_error(tree: Tree, agent: ListeningAgent) -> None:
    done = run(agent, tree)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("there are no control groups in ")
