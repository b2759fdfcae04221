"""Collection: record the good generation and remove what nothing needs, at the end of `up`.

Folders are only moved aside here; a background process deletes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from .engine.run import Run
from .engine.step import Task, step
from .generation import last_good
from .generation import stage as generation
from .host.generations import kept_generations
from .host.storage import digest_folders, disk, garbage
from .pm2 import databases
from .spec.layout import Layout


def tasks(run: Run) -> Iterator[Task]:
    yield step(
        run,
        "collection",
        "Record what is good, remove what nothing needs; fails while machine.yaml is refused",
        check=partial(_reason_to_collect, run),
        action=partial(_collect, run),
        preview=partial(_preview, run),
        after=[
            *("validation", "links", "gpus", "instances"),
            *(["jobs"] if run.machine.wanted_jobs else []),
            *("health", "watcher", "workers"),
        ],
        garbage=partial(_removable, run.layout),
    )


def _reason_to_collect(run: Run) -> str | None:
    layout = run.layout
    if reason := last_good.reason_to_record(run):
        return reason
    names = [path.name for path in [*_unneeded_generations(run), *_unneeded_databases(run)]]
    if names := names or [path.name for path in garbage.left(layout)]:
        return f"not needed any more: {', '.join(names)}"
    for name, reason in disk.last_measured(layout).stuck.items():
        if (layout.garbage / name).exists():
            run.warn(f"{layout.garbage / name} can't be deleted ({reason}): remove it by hand")
    return None


def _preview(run: Run, log: Path) -> list[str]:
    last_good.raise_if_refused(run)
    return []


def _collect(run: Run, log: Path) -> None:
    layout = run.layout
    last_good.record_good(run)
    for path in [*_unneeded_generations(run), *_unneeded_databases(run)]:
        garbage.discard(layout, path)
    last_good.remove_unused(layout)
    garbage.start(layout)


def _removable(layout: Layout) -> list[Path]:
    return [
        *garbage.entries(layout),
        *kept_generations.unneeded(layout, kept_generations.in_use(layout)),
    ]


def _needed_generations(run: Run) -> set[str]:
    number = run.machine.retention.generations
    return {generation.folder_of(run).name, *kept_generations.kept(run.layout, number)}


def _unneeded_generations(run: Run) -> list[Path]:
    return kept_generations.unneeded(run.layout, _needed_generations(run))


def _unneeded_databases(run: Run) -> list[Path]:
    needed, every = _needed_generations(run), digest_folders.list_folders(run.layout.generations)
    return databases.unneeded(run.layout, [path for path in every if path.name in needed])
