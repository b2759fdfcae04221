"""The house: which way imports point, what `doit list` costs, what it reads like."""

from __future__ import annotations

import ast
import graphlib
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from comfy_machine.host.system import private_folder
from tests.rig import DOIT, PROJECT

MODULES = [PROJECT / "dodo.py", *sorted((PROJECT / "comfy_machine").rglob("*.py"))]
MODULES = [file for file in MODULES if not file.is_symlink()]

#: Each layer, and those it may import besides itself.
LAYERS = {
    "spec": set[str](),
    "host": {"spec"},
    "services": {"spec", "host"},
    "engine": {"spec", "host"},
    "stages": {"spec", "host", "engine"},
    "commands": {"spec", "host", "engine", "stages"},
    "dodo": {"spec", "host", "engine", "stages", "commands"},
    "cli": {"spec", "host", "engine", "dodo"},
}
HEAVY = ("git", "requests", "jinja2", "pynvml", "rich", "fastapi", "psutil", "nats", "obstore")


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
    return {name for name in imports(file) if name.split(".")[0] in ("comfy_machine", "dodo")}


@pytest.mark.parametrize("file", MODULES, ids=_name)
def test_imports_point_one_way(file: Path) -> None:
    here = layer(_name(file))
    wrong = {name for name in ours(file) if layer(name) not in {here, *LAYERS[here]}}
    assert wrong - {"comfy_machine"} == set()


def test_the_walk_over_imports_sees_them_all() -> None:
    seen = set().union(*map(ours, MODULES))
    assert {
        "comfy_machine.spec.model",
        "comfy_machine.host.repositories.git",
        "comfy_machine.engine.step",
        "comfy_machine.source.stage",
    } <= seen
    assert {layer(_name(file)) for file in MODULES} == set(LAYERS)
    known = NAMES | {"comfy_machine"}
    assert seen <= known, "or a name was resolved wrongly"


BELOW = [file for file in MODULES if layer(_name(file)) in ("spec", "host", "services")]


@pytest.mark.parametrize("file", BELOW, ids=_name)
def test_only_the_engine_and_what_builds_on_it_knows_doit(file: Path) -> None:
    assert not {name for name in imports(file) if name.split(".")[0] == "doit"}


def test_stages_reach_doit_through_the_engine_alone() -> None:
    stages = [file for file in MODULES if layer(_name(file)) == "stages"]
    assert not [_name(f) for f in stages if {"doit"} & {n.split(".")[0] for n in imports(f)}]


def package(module: str) -> str:
    """The package that a module is in; of a package itself."""
    return module if module in PACKAGES else module.rpartition(".")[0]


PACKAGES = {_name(file) for file in MODULES if file.name == "__init__.py"}


def front(room: str) -> set[str] | None:
    """The modules of a room that others may import: its `__all__`; None: any, as of
    `comfy_machine.spec`, whose `__all__` holds names."""
    tree = ast.parse((PROJECT / Path(*room.split("."), "__init__.py")).read_text())
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            names = {f"{room}.{name}" for name in ast.literal_eval(node.value)}
            return names if names <= NAMES else None
    return None


FRONTS = {room: names for room in PACKAGES if (names := front(room)) is not None}


#: Packages of which everything may be imported; `spec` has names at its front.
OPEN = ("", ".commands", ".commands.shared", ".host", ".services", ".services.inside", ".spec")


def test_every_room_has_a_front() -> None:
    assert {
        "comfy_machine.host.python",
        "comfy_machine.lock",
        "comfy_machine.services.health.conditions",
    } <= set(FRONTS)
    without = PACKAGES - set(FRONTS)
    assert without == {f"comfy_machine{name}" for name in OPEN}


@pytest.mark.parametrize("file", MODULES, ids=_name)
def test_a_room_is_entered_by_its_front(file: Path) -> None:
    here = f"{package(_name(file))}."
    behind = {
        name
        for name in ours(file)
        if (room := package(name)) in FRONTS and not here.startswith(f"{room}.")
        and name not in FRONTS[room] | PACKAGES
    }  # fmt: skip
    assert behind == set(), "a room's helpers are its own"


def test_what_stands_at_a_front_is_asked_for_from_outside() -> None:
    wanted = {
        name
        for file in MODULES
        for name in ours(file)
        if not f"{package(_name(file))}.".startswith(f"{package(name)}.")
    }
    assert {name for names in FRONTS.values() for name in names} - wanted == set()


def test_rooms_need_each_other_in_one_direction() -> None:
    """A room is a package, or a module of the package itself; a stage is one with all it has."""

    def room(module: str) -> str:
        above = package(module)
        if above in ("comfy_machine", "comfy_machine.services", ""):
            return module
        return ".".join(above.split(".")[:2]) if layer(module) == "stages" else above

    graph: dict[str, set[str]] = {}
    for file in MODULES:
        here = room(_name(file))
        # The name of a package is asked for beside the names in it.
        others = {room(name) for name in ours(file) - PACKAGES} - {here}
        graph.setdefault(here, set()).update(others)
    list(graphlib.TopologicalSorter(graph).static_order())


def test_a_base_name_has_one_meaning() -> None:
    """But for a stage and the service that it starts, a stage's name being its task's, and for
    packages that are programs."""
    bases = [name.rpartition(".")[2] for name in NAMES - PACKAGES]
    bases = [base for base in bases if base != "__main__"]
    twice = {base for base, count in Counter(bases).items() if count > 1}
    assert twice == {"stage", "watcher"}


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
    assert "comfy_machine.spec.fields" in loaded
    assert [name for name in HEAVY if name in loaded] == []


def test_the_watcher_which_always_runs_loads_no_pydantic() -> None:
    code = "import sys, comfy_machine.services.watcher; print('pydantic' in sys.modules)"
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
    sequence = """directories ports supervisor server source nodes environment generation validation
    links dotenv gpus limits pm2 instances health watcher workers collection""".split()
    assert [name for name in names if name in sequence] == sequence
    assert [line[0] for line in listed if len(line) < 3] == [], "each has a doc line"
    assert not [name for name in names if ":" in name]


def test_the_gpus_are_sub_tasks(fresh: Path) -> None:
    names = {line.split()[0] for line in doit(fresh, "list", "--all")[0].splitlines() if line}
    for gpu in ("gpu0", "gpu1"):
        assert {f"pm2:{gpu}", f"health:{gpu}", f"workers:worker-{gpu}"} <= names
    assert {"nodes:pack", "dotenv:pack"} <= names
