"""The programs that the document brings to the hosts, with the oldest Python that they are for."""

from __future__ import annotations

import ast
import base64
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tests.hosts.conftest import needs
from tests.hosts.machine import ROOT, SYSTEM_PATH, end, wait_for
from tests.hosts.test_metrics_memcached import KEYS
from tests.hosts.trees import V1, V1_LAYOUTS, V2, V2_LAYOUTS, ListeningAgent, Said, Tree, task

OLDEST = (3, 9)
"""Of Amazon Linux 2023, for all its life."""
PROGRAMS = ("ecs_bluegreen_metrics.py", "mackerel_plugin_memcached.py")
TYPES_ONLY = ("__future__.", "collections.abc.", "typing.")
PYENV = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser()


def modules(tree: ast.AST) -> set[str]:
    """All that is imported anywhere in it, by whole names."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found


def uses(tree: ast.AST) -> set[str]:
    """``module.name`` of all that is taken from modules, as far as the text says it."""
    imported = modules(tree)
    found = {
        f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in imported:
            found.add(ast.unparse(node))
    return found


def parsed(name: str) -> ast.Module:
    return ast.parse((ROOT / "hosts" / name).read_text(), feature_version=OLDEST)


@pytest.fixture(scope="module")
def old_python() -> str:
    """The oldest interpreter here that is not too old; if need be the one that runs the tests."""
    versions: dict[tuple[int, ...], str] = {sys.version_info[:2]: sys.executable}
    for program in PYENV.glob("versions/3.*/bin/python3"):
        number = tuple(int(part) for part in program.parts[-3].split(".")[:2])
        if number >= OLDEST:
            versions[number] = str(program)
    return versions[min(versions)]


@pytest.mark.parametrize("name", PROGRAMS)
def test_nothing_in_it_is_newer(name: str) -> None:
    tree = parsed(name)
    imported = {module.partition(".")[0] for module in modules(tree)} - {"__future__"}
    assert imported <= set(sys.stdlib_module_names)
    # https://docs.python.org/3/library/ : "Added in version"
    assert not imported & {"tomllib", "annotationlib", "compression", "concurrent.interpreters"}


def test_the_check_sees_what_is_newer() -> None:
    for text in ("match 1:\n case 1: pass", "try: pass\nexcept* OSError: pass", "type A = int"):
        with pytest.raises(SyntaxError):
            ast.parse(text, feature_version=OLDEST)
    tree = ast.parse("import os, os.path\nfrom c.d import e\ndef f():\n os.path.x(os.y, e.z)")
    assert modules(tree) == {"os", "os.path", "c.d"}
    assert uses(tree) == {"os.path", "os.path.x", "os.y", "c.d.e"}


@pytest.mark.parametrize("name", PROGRAMS)
def test_an_old_python_has_all_that_it_uses(name: str, old_python: str) -> None:
    """Also what no other test of an old Python gets to."""
    used = sorted(use for use in uses(parsed(name)) if not use.startswith(TYPES_ONLY))
    assert {"os.open", "json.dumps"} <= set(used)
    code = (
        "import importlib, sys\n"
        "with open(sys.argv[1]) as file: compile(file.read(), sys.argv[1], 'exec')\n"
        "for use in sys.argv[2:]:\n"
        "    module, _, name = use.rpartition('.')\n"
        "    getattr(importlib.import_module(module), name)\n"
    )
    done = subprocess.run(
        [old_python, "-I", "-W", "error", "-c", code, str(ROOT / "hosts" / name), *used],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("fixture", "layout"), [(V1, V1_LAYOUTS[0]), (V2, V2_LAYOUTS[0])])
def test_an_old_python_reads_the_same(
    agent: ListeningAgent, tree: Tree, old_python: str, fixture: str, layout: str
) -> None:
    """Containers, the network of a task, and a plugin with graphs."""
    agent.tasks = [task(1, "app"), task(2, "app", "sidecar")]
    tree.add(fixture, layout)
    tree.add(fixture, layout, 2, network="net:[4026539999]")
    tree.add(fixture, layout, 2, 1, network="net:[4026539999]")
    graphs = json.dumps({"graphs": {"dice": {"label": "Dice", "unit": "float", "metrics": []}}})
    command = (
        "if test $MACKEREL_AGENT_PLUGIN_META; then "
        f"echo '# mackerel-agent-plugin\n{graphs}'; exit; fi; "
        "printf 'dice.%s\\t4\\t1397031808\\n' $APP_PORT_80_TCP_PORT"
    )
    plugin = {"name": "dice", "container": "app", "command": command, "timeout_seconds": 5}
    plugins = base64.b64encode(json.dumps([plugin]).encode()).decode()

    def entries(python: str) -> list[object]:
        done = subprocess.run(
            [python, "-I", "-W", "error", str(ROOT / "hosts" / PROGRAMS[0]), plugins],
            env={"PATH": SYSTEM_PATH, **tree.environment(agent.where)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        said = Said(done.stdout.splitlines())
        assert said.problems == []
        return [{**entry, "at": 0} for entry in said.entries]

    found = entries(old_python)
    assert found == entries(sys.executable)
    assert len(found) >= 5


def test_an_old_python_runs_the_memcached_plugin(tmp_path: Path, old_python: str) -> None:
    needs("memcached")
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:  # a socket's path is short
        path = f"{directory}/cache.sock"
        process = subprocess.Popen(
            ["memcached", "-u", "root", "-s", path],
            env={"PATH": SYSTEM_PATH},
            start_new_session=True,
        )
        try:
            wait_for(lambda: Path(path).exists())

            def keys(python: str, **environment: str) -> list[str]:
                done = subprocess.run(
                    [python, "-I", "-W", "error", str(ROOT / "hosts" / PROGRAMS[1]), *options],
                    env={"MACKEREL_PLUGIN_WORKDIR": str(tmp_path), **environment},
                    capture_output=True,
                    text=True,
                    check=False,
                )
                assert (done.returncode, done.stderr) == (0, "")
                return [line.split("\t")[0] for line in done.stdout.splitlines()]

            options = ("-socket", path)
            # The first run, without counters, is that of the other Python: its state can be read.
            assert len(keys(sys.executable)) == sum(not counts for counts in KEYS.values())
            state = tmp_path / "mackerel-plugin-memcached"
            state.write_text(
                json.dumps(json.loads(state.read_text()) | {"_lastTime": time.time() - 60})
            )
            assert set(keys(old_python)) == set(KEYS)
            meta = {"MACKEREL_AGENT_PLUGIN_META": "1"}
            assert keys(old_python, **meta) == keys(sys.executable, **meta)
        finally:
            end(process)
