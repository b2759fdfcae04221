"""The house: which way imports point, what `doit list` costs, what it reads like."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.host.system import private_folder
from tests.rig import DOIT, PROJECT

MODULES = [PROJECT / "dodo.py", *sorted((PROJECT / "tasks").rglob("*.py"))]

#: Each layer, and those it may import besides itself.
LAYERS = {
    "spec": set[str](),
    "host": {"spec"},
    "services": {"spec", "host"},
    "engine": {"spec", "host"},
    "stages": {"spec", "host", "engine"},
    "commands": {"spec", "host", "engine", "stages"},
    "dodo": {"spec", "host", "engine", "stages", "commands"},
}
HEAVY = ("git", "requests", "jinja2", "pynvml", "rich", "fastapi", "psutil")


def _name(file: Path) -> str:
    parts = list(file.relative_to(PROJECT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {_name(file) for file in MODULES}


def layer(module: str) -> str:
    if module == "dodo":
        return "dodo"
    second = module.split(".")[1] if "." in module else ""
    return second if second in LAYERS else "stages"


def imports(file: Path) -> Iterator[str]:
    """Every module that a file imports, anywhere in it, by its absolute name."""
    package = _name(file) if file.name == "__init__.py" else _name(file).rpartition(".")[0]
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level]
            base = ".".join([*above, node.module] if node.module else above)
            base = base if node.level else str(node.module)
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield inner if inner in NAMES else base


def ours(file: Path) -> set[str]:
    return {name for name in imports(file) if name.split(".")[0] in ("tasks", "dodo")}


@pytest.mark.parametrize("file", MODULES, ids=_name)
def test_imports_point_one_way(file: Path) -> None:
    here = layer(_name(file))
    wrong = {name for name in ours(file) if layer(name) not in {here, *LAYERS[here]}}
    assert wrong - {"tasks"} == set()


def test_the_walk_over_imports_sees_them_all() -> None:
    seen = set().union(*map(ours, MODULES))
    assert {"tasks.spec.model", "tasks.host.git", "tasks.engine.step", "tasks.source"} <= seen
    assert {layer(_name(file)) for file in MODULES} == set(LAYERS)
    known = NAMES | {"tasks"}
    assert seen <= known, "or a name was resolved wrongly"


BELOW = [file for file in MODULES if layer(_name(file)) in ("spec", "host", "services")]


@pytest.mark.parametrize("file", BELOW, ids=_name)
def test_only_the_engine_and_what_builds_on_it_knows_doit(file: Path) -> None:
    assert not {name for name in imports(file) if name.split(".")[0] == "doit"}


def test_stages_reach_doit_through_the_engine_alone() -> None:
    stages = [file for file in MODULES if layer(_name(file)) == "stages"]
    assert not [_name(f) for f in stages if {"doit"} & {n.split(".")[0] for n in imports(f)}]


@pytest.mark.parametrize("file", MODULES, ids=_name)
def test_a_module_stays_below_300_lines(file: Path) -> None:
    assert len(file.read_text().splitlines()) <= 300


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """A folder with a machine file and nothing else."""
    folder = tmp_path / "fresh"
    folder.mkdir()
    (folder / "machine.yaml").write_text(
        "workspace: ws\n"
        "comfyui: {repo: https://localhost/ComfyUI.git}\n"
        "custom_nodes: [{url: https://localhost/pack, env: {TOKEN: '${TOKEN}'}}]\n"
        "instances: {gpus: 2}\n"
        "workers: [{name: worker, command: [sleep, '1']}]\n"
    )
    return folder


def doit(fresh: Path, *arguments: str, python: tuple[str, ...] = ()) -> tuple[str, str]:
    ended = subprocess.run(
        [sys.executable, *python, str(DOIT), *arguments, f"machine={fresh / 'machine.yaml'}"],
        cwd=PROJECT,
        env={"PATH": os.environ["PATH"], "HOME": str(fresh), "LC_ALL": "C.UTF-8"}
        | {key: value for key, value in os.environ.items() if key == "PYTHONPATH"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout, ended.stderr


def test_doit_list_loads_nothing_heavy(fresh: Path) -> None:
    _, timings = doit(fresh, "list", python=("-X", "importtime"))
    loaded = set(re.findall(r"^import time:[ \d|]+ (\S+)$", timings, re.M))
    assert "doit" in loaded
    assert "tasks.spec.fields" in loaded
    assert [name for name in HEAVY if name in loaded] == []


def test_the_watcher_which_always_runs_loads_no_pydantic() -> None:
    code = "import sys, tasks.services.watcher; print('pydantic' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-I", "-c", code]) == b"False\n"


def test_doit_list_makes_no_file(fresh: Path) -> None:
    before = {path.name for path in PROJECT.iterdir()}
    doit(fresh, "list", "--all", "--status")
    assert [path.name for path in fresh.iterdir()] == ["machine.yaml"]
    assert not private_folder.folder(fresh / "ws").exists()
    assert {path.name for path in PROJECT.glob("*.db*")} <= before


def test_doit_list_reads_like_the_start_up_sequence(fresh: Path) -> None:
    listed = [line.split() for line in doit(fresh, "list")[0].splitlines() if line.strip()]
    names = [line[0] for line in listed]
    sequence = """directories supervisor server source nodes environment generation validation links
    dotenv gpus ports limits pm2 instances health watcher workers collection""".split()
    assert [name for name in names if name in sequence] == sequence
    assert [line[0] for line in listed if len(line) < 3] == [], "each has a doc line"
    assert not [name for name in names if ":" in name]


def test_the_gpus_are_sub_tasks(fresh: Path) -> None:
    names = {line.split()[0] for line in doit(fresh, "list", "--all")[0].splitlines() if line}
    for gpu in ("gpu0", "gpu1"):
        assert {f"pm2:{gpu}", f"health:{gpu}", f"workers:worker-{gpu}"} <= names
    assert {"nodes:pack", "dotenv:pack"} <= names
