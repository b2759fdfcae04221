"""The first run makes everything, the second nothing, and each change exactly its part."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from comfy_machine.engine.messages import describe_move
from comfy_machine.host.storage import garbage
from tests.conftest import MachineMaker
from tests.contract.client import until
from tests.forge import Forge, Repository
from tests.rig import PROJECT, Rig, snapshot

pytestmark = pytest.mark.afresh

MOVED = {"generation:assemble", "validation"}
RESTARTED = {"pm2:gpu0", "instances:start", "health:gpu0", "collection"}
NEW_GENERATION = {*MOVED, *RESTARTED}


@dataclass
class World:
    """A machine that is up: one node, one model, one instance."""

    rig: Rig
    forge: Forge
    node: Repository
    model: Path


@pytest.fixture
def world(machine: MachineMaker, forge: Forge, tmp_path: Path) -> World:
    node = forge.node("alpha", {"requirements.txt": "packaging\n"})
    node.git("tag", "v1")
    model = tmp_path / "volume" / "one.safetensors"
    model.parent.mkdir()
    model.write_bytes(b"weights")
    rig = machine(
        custom_nodes=[{"url": node.url, "ref": "v1"}],
        models={"files": [{"target": "checkpoints/one.safetensors", "source": str(model)}]},
    )
    rig.doit()
    return World(rig, forge, node, model)


def node_ref(world: World) -> None:
    world.node.commit({"more.py": ""}, tag="v2")
    world.rig.spec["custom_nodes"][0]["ref"] = "v2"


def node_added(world: World) -> None:
    world.rig.spec["custom_nodes"].append({"url": world.forge.node("beta").url})


def node_with_requirements_added(world: World) -> None:
    node = world.forge.node("gamma", {"requirements.txt": "toml\n"})
    world.rig.spec["custom_nodes"].append({"url": node.url})


def node_env_added(world: World) -> None:
    world.rig.spec["custom_nodes"][0]["env"] = {"COLOUR": "red"}


def nodes_removed(world: World) -> None:
    world.rig.spec["custom_nodes"] = []


def model_link_added(world: World) -> None:
    entry = {"target": "loras/two.safetensors", "source": str(world.model)}
    world.rig.spec["models"]["files"].append(entry)


def model_link_removed(world: World) -> None:
    world.rig.spec["models"]["files"] = []


def link_re_pointed_by_hand(world: World) -> None:
    link = world.rig.workspace / "shared/models/checkpoints/one.safetensors"
    link.unlink()
    link.symlink_to("/nowhere")


def instance_args(world: World) -> None:
    world.rig.spec["instances"]["args"] = ["--preview-method", "none"]


def port_start(world: World) -> None:
    world.rig.spec["instances"]["port_start"] += 1


def worker_added(world: World) -> None:
    world.rig.spec["workers"] = [{"name": "helper", "command": ["sleep", "600"]}]


def instance_added(world: World) -> None:
    world.rig.spec["instances"]["gpus"] = 2


def lock_edited_by_hand(world: World) -> None:
    content = json.loads(world.rig.lock_file.read_text())
    content["python"]["packages"]["packaging"] = {"version": "24.0"}
    world.rig.lock_file.write_text(json.dumps(content))


def checkout_moved_by_hand(world: World) -> None:
    first = world.node.git("rev-parse", "v1")
    there = Repository(world.rig.comfyui / "custom_nodes" / "alpha")
    second = world.node.commit({"other.py": ""})
    there.git("fetch", "--quiet", world.node.url, second)
    there.git("checkout", "--quiet", second)
    assert first != second


def source_moved_by_hand(world: World) -> None:
    (source,) = world.rig.layout.sources.glob("alpha@*")
    second = world.node.commit({"other.py": ""})
    Repository(source).git("fetch", "--quiet", world.node.url, second)
    Repository(source).git("checkout", "--quiet", second)


def package_uninstalled_by_hand(world: World) -> None:
    (dist_info,) = world.rig.environment.glob("lib/python*/site-packages/packaging-*.dist-info")
    shutil.rmtree(dist_info.with_name("packaging"))
    shutil.rmtree(dist_info)


def receipt_truncated(world: World) -> None:
    (world.rig.layout.receipts / "source.json").write_text('{"asked": {"pa')


def environments_receipt_truncated(world: World) -> None:
    world.rig.environment.with_name(f"{world.rig.environment.name}.json").write_text("{")


def generations_receipt_deleted(world: World) -> None:
    generation = world.rig.comfyui.parent
    generation.with_name(f"{generation.name}.json").unlink()


def every_receipt_deleted(world: World) -> None:
    shutil.rmtree(world.rig.layout.receipts)
    world.rig.layout.receipts.mkdir()


Change = tuple[Callable[[World], None], set[str]]
MORE_CODE: list[Change] = [
    (node_ref, {"nodes:alpha", "lock", *NEW_GENERATION}),
    (node_added, {"nodes:beta", "lock", *NEW_GENERATION}),
    (node_with_requirements_added, {"nodes:gamma", "lock", "environment", *NEW_GENERATION}),
    (node_env_added, {"dotenv:alpha", *NEW_GENERATION}),
    (nodes_removed, {"lock", "environment", "dotenv:.prune", *NEW_GENERATION}),
]
MORE_TO_RUN: list[Change] = [
    (model_link_added, {"links:files"}),
    (model_link_removed, {"links:prune"}),
    (instance_args, {"source", *RESTARTED}),
    (port_start, {"ports", *RESTARTED}),
    (worker_added, {"pm2:gpu0", "watcher", "workers:helper-gpu0", "collection"}),
    (
        instance_added,
        {
            # Each has another part of the memory then.
            *("directories", "ports", "pm2:gpu0", "pm2:gpu1", "instances:start"),
            *("health:gpu0", "health:gpu1", "watcher", "workers:helper-gpu1", "collection"),
        },
    ),
]
MOVED_BY_HAND: list[Change] = [
    (link_re_pointed_by_hand, {"links:files"}),
    (checkout_moved_by_hand, NEW_GENERATION),
    (source_moved_by_hand, {"nodes:alpha"}),
    (package_uninstalled_by_hand, {"environment", *NEW_GENERATION}),
    (lock_edited_by_hand, {"lock", "environment", *NEW_GENERATION}),
]
LOST: list[Change] = [
    (receipt_truncated, {"source"}),
    (
        every_receipt_deleted,
        {"source", "nodes:alpha", "lock", "environment", "generation:assemble"},
    ),
    (environments_receipt_truncated, {"environment", *NEW_GENERATION}),
    (generations_receipt_deleted, NEW_GENERATION),
]


def differences(before: dict[str, str], after: dict[str, str]) -> set[str]:
    """Package by package, in a plan's words."""
    return {
        describe_move(name, before.get(name), after.get(name))
        for name in {*before, *after}
        if before.get(name) != after.get(name)
    }


def all_but_the_apps(rig: Rig) -> dict[str, tuple[int, int, int]]:
    """Every file but those that the watcher and other apps write while they run."""
    until(lambda: not garbage.at_work(rig.layout), 60, "what nobody waits for to end")
    state = rig.layout.state
    noted = tuple(f"{state / name}/" for name in ("starts", "held", "probed", "instances"))
    return {
        path: seen
        for path, seen in snapshot(rig.folder).items()
        if not path.startswith(noted)
        and not path.endswith(".part")
        and path != str(state / "logs.json")
    }


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "changes",
    [MORE_CODE, MORE_TO_RUN, MOVED_BY_HAND, LOST],
    ids=["more_code", "more_to_run", "moved_by_hand", "lost"],
)
def test_each_change_executes_exactly_its_tasks_as_planned_and_converges(
    world: World, changes: list[Change]
) -> None:
    for change, expected in changes:
        check(world, change, expected)


def check(world: World, change: Callable[[World], None], expected: set[str]) -> None:
    what = change.__name__
    rig = world.rig
    generation, environment = rig.comfyui.parent, rig.environment
    change(world)
    rig.write()
    everything = all_but_the_apps(rig)
    planned = rig.doit("plan")
    written = set(everything.items()) ^ set(all_but_the_apps(rig).items())
    assert not written, f"{what}: a plan changes nothing"
    before = snapshot(generation) | snapshot(environment)
    packages = rig.packages()
    assert rig.doit().executed == expected, what
    assert planned.planned == expected, what
    moves = differences(packages, rig.packages())
    assert {line for line in planned.moves if not line.startswith("alpha ")} == moves, what
    # What ran may be collected once nothing runs from it; what is left of it is unchanged.
    after = snapshot(generation) | snapshot(environment)
    assert not after or after == before, what
    assert rig.doit().executed == set(), what


def test_the_first_run_executes_every_task_that_has_work(
    machine: MachineMaker, forge: Forge
) -> None:
    rig = machine(custom_nodes=[{"url": forge.node("alpha").url}])
    run = rig.doit()
    databases = [*PROJECT.glob(".doit*"), *rig.folder.rglob(".doit*"), *rig.folder.rglob("doit.*")]
    assert databases == [], "whether a step is up to date is read from the disk alone"
    assert run.executed == {
        "directories",
        "source",
        "nodes:alpha",
        "lock",
        "environment",
        "generation:assemble",
        "validation",
        "links:own",
        "ports",
        "pm2:gpu0",
        "instances:start",
        "health:gpu0",
        "watcher",
        "collection",
    }
