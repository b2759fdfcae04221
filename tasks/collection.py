"""Collection: what no generation names any more is removed, at the end of `up`."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from functools import partial
from pathlib import Path

from tasks import databases, environment, generation, last_good, nodes, source
from tasks.engine.step import Task, step
from tasks.host import files, made
from tasks.spec import Instance, Machine


def tasks(machine: Machine, instances: Sequence[Instance]) -> Iterator[Task]:
    yield step(
        "collection",
        "Note what is good, remove what nothing needs; fails while machine.yaml's was refused",
        check=partial(_to_do, machine, instances),
        action=partial(_collect, machine, instances),
        foresee=partial(_foresee, machine),
        log=machine.layout.log("collection"),
        after=["validation", "links", "gpus", "instances", "health", "watcher", "workers"],
    )


def _to_do(machine: Machine, instances: Sequence[Instance]) -> str | None:
    if reason := last_good.unnoted(machine, instances):
        return reason
    names = [path.name for path in [*_garbage(machine), *_unneeded_databases(machine)]]
    return f"nothing needs {', '.join(names)}" if names else None


def _foresee(machine: Machine, log: Path) -> list[str]:
    last_good.insist(machine)
    return []


def _collect(machine: Machine, instances: Sequence[Instance], log: Path) -> None:
    last_good.note(machine, instances)
    for path in _garbage(machine):
        made.remove(path)
    for path in _unneeded_databases(machine):
        files.remove(path)


def _garbage(machine: Machine) -> list[Path]:
    """Folders that are neither current, nor last good, nor in use by any process."""
    layout = machine.layout
    there = {path.name: path for path in made.list_folders(layout.generations)}
    keep = _kept(machine, there)
    environments = environment.of_generations([there[name] for name in keep if name in there])
    return [
        *(path for name, path in sorted(there.items()) if name not in keep),
        *(p for p in made.list_folders(layout.environments) if p.name not in environments),
        *_unneeded_sources(machine),
    ]


def _kept(machine: Machine, there: Collection[str]) -> set[str]:
    in_use = generation.in_use(machine.layout)
    good = last_good.healthy(machine.layout)
    others = [name for name in good if name in there and name not in in_use]
    return {generation.folder_of(machine).name, *in_use, *others[-1:]}


def _unneeded_databases(machine: Machine) -> list[Path]:
    there = made.list_folders(machine.layout.generations)
    keep = _kept(machine, [path.name for path in there])
    return databases.unneeded(machine.layout, [path for path in there if path.name in keep])


def _unneeded_sources(machine: Machine) -> list[Path]:
    every = [source.of(machine), *(nodes.source_of(machine, node) for node in machine.custom_nodes)]
    keep = {each.checkout(str(each.read().get("commit"))).name for each in every}
    folders = made.list_folders(machine.layout.sources)
    return [path for path in folders if path.name not in keep]
