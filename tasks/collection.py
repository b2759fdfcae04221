"""Collection: what no generation names any more is removed, at the end of `up`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from tasks import environment, generation, nodes, source
from tasks.engine.step import Task, step
from tasks.host import files, made
from tasks.spec import Instance, Machine
from tasks.spec.layout import Layout


def tasks(machine: Machine, instances: Sequence[Instance]) -> Iterator[Task]:
    yield step(
        "collection",
        "Note the good generation, remove what nothing needs",
        check=partial(_to_do, machine, instances),
        action=partial(_collect, machine, instances),
        log=machine.layout.log("collection"),
        after=["validation", "links", "gpus", "instances", "health", "watcher", "workers"],
    )


def _to_do(machine: Machine, instances: Sequence[Instance]) -> str | None:
    layout = machine.layout
    if instances and _healthy(layout)[-1:] != [layout.current.resolve().name]:
        return "the current generation was not yet noted as good"
    names = [path.name for path in _garbage(machine)]
    return f"nothing needs {', '.join(names)}" if names else None


def _collect(machine: Machine, instances: Sequence[Instance], log: Path) -> None:
    if instances:
        _note_healthy(machine.layout)
    for path in _garbage(machine):
        made.remove(path)


def _note(layout: Layout) -> Path:
    return layout.state / "healthy.json"


def _healthy(layout: Layout) -> list[str]:
    """Generations on which all instances were healthy, newest last."""
    names: list[str] = files.read_receipt(_note(layout), generations=list).get("generations", [])
    return names


def _note_healthy(layout: Layout) -> None:
    current = layout.current.resolve().name
    names = [name for name in _healthy(layout) if name != current]
    files.write_receipt(_note(layout), {"generations": [*names, current][-10:]})


def _garbage(machine: Machine) -> list[Path]:
    """Folders that are neither current, nor last good, nor in use by any process."""
    layout = machine.layout
    there = {path.name: path for path in made.list_folders(layout.generations)}
    in_use = generation.in_use(layout)
    others = [name for name in _healthy(layout) if name in there and name not in in_use]
    keep = {generation.folder_of(machine).name, *in_use, *others[-1:]}
    environments = environment.of_generations([there[name] for name in keep if name in there])
    return [
        *(path for name, path in sorted(there.items()) if name not in keep),
        *(p for p in made.list_folders(layout.environments) if p.name not in environments),
        *_unneeded_sources(machine),
    ]


def _unneeded_sources(machine: Machine) -> list[Path]:
    every = [source.of(machine), *(nodes.source_of(machine, node) for node in machine.custom_nodes)]
    keep = {each.checkout(str(each.read().get("commit"))).name for each in every}
    folders = made.list_folders(machine.layout.sources)
    return [path for path in folders if path.name not in keep]
