"""Collection: what is good is noted, and what nothing needs any more goes, at the end of `up`.

It is only moved out of the way here; a process that nobody waits for deletes it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from .engine.messages import warn
from .engine.step import Task, step
from .generation import last_good
from .generation import stage as generation
from .host.generations import kept_generations
from .host.storage import digest_folders, disk, garbage
from .pm2 import databases
from .spec import Instance, Machine
from .spec.layout import Layout


def tasks(machine: Machine, instances: Sequence[Instance]) -> Iterator[Task]:
    yield step(
        "collection",
        "Note what is good, remove what nothing needs; fails while machine.yaml's was refused",
        check=partial(_to_do, machine, instances),
        action=partial(_collect, machine, instances),
        foresee=partial(_foresee, machine),
        log=machine.layout.log("collection"),
        after=["validation", "links", "gpus", "instances", "health", "watcher", "workers"],
        garbage=partial(_garbage, machine.layout),
    )


def _to_do(machine: Machine, instances: Sequence[Instance]) -> str | None:
    layout = machine.layout
    if reason := last_good.unnoted(machine, instances):
        return reason
    names = [path.name for path in [*_unneeded(machine), *_unneeded_databases(machine)]]
    if names := names or [path.name for path in garbage.left(layout)]:
        return f"nothing needs {', '.join(names)}"
    for name, reason in disk.read(layout).stuck.items():
        if (layout.garbage / name).exists():
            warn(f"{layout.garbage / name} can't be deleted ({reason}): remove it by hand")
    return None


def _foresee(machine: Machine, log: Path) -> list[str]:
    last_good.insist(machine)
    return []


def _collect(machine: Machine, instances: Sequence[Instance], log: Path) -> None:
    layout = machine.layout
    last_good.note(machine, instances)
    for path in [*_unneeded(machine), *_unneeded_databases(machine)]:
        garbage.discard(layout, path)
    last_good.forget(layout)
    garbage.start(layout)


def _garbage(layout: Layout) -> list[Path]:
    """What nothing needs that runs, so that it can be gone on with."""
    return [
        *garbage.entries(layout),
        *kept_generations.unneeded(layout, kept_generations.in_use(layout)),
    ]


def _kept(machine: Machine) -> set[str]:
    number = machine.retention.generations
    return {generation.folder_of(machine).name, *kept_generations.kept(machine.layout, number)}


def _unneeded(machine: Machine) -> list[Path]:
    return kept_generations.unneeded(machine.layout, _kept(machine))


def _unneeded_databases(machine: Machine) -> list[Path]:
    keep, there = _kept(machine), digest_folders.list_folders(machine.layout.generations)
    return databases.unneeded(machine.layout, [path for path in there if path.name in keep])
