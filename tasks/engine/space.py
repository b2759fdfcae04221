"""Disk space for new folders: when there is too little, the oldest kept generations go first."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from ..host.generations import kept_generations
from ..host.storage import digest_folders
from ..host.storage.disk_space import DiskSpace, free
from ..host.system import files
from ..host.system.failure import Failure
from ..host.system.units import size
from .run import Run


@contextmanager
def reserve(run: Run, what: str, folder: Path, need: int) -> Iterator[None]:
    """Make space for `folder`, which the body makes and which takes about `need` bytes.

    `need` is an estimate: too little space removes old generations but fails nothing. When the
    body fails an unfinished `folder` is removed; on a full volume the Failure says so.
    """
    volume = run.layout.machine
    _free_space(run, what, need)
    short = free(volume) < need
    try:
        yield
    except Exception as error:
        left = free(volume)
        if not digest_folders.read(folder):
            files.remove(folder)
        message = f"{what} needs about {size(need)}, {size(left)} free on {volume}: free some space"
        if left == 0:
            raise Failure(message) from error
        if short and isinstance(error, Failure):
            raise Failure(f"{error}; {message}", error.log) from error
        raise


def models_space(run: Run, store: Path) -> DiskSpace:
    """The space for models in `store`; on the same volume, old generations make way for them."""
    here = run.layout.machine
    same = here.is_dir() and here.stat().st_dev == store.stat().st_dev
    return DiskSpace(store, partial(_free_space, run, "the models") if same else None)


def _free_space(run: Run, what: str, need: int) -> None:
    if gone := kept_generations.make_room(run.layout, need):
        names = f"generation{'s' if len(gone) > 1 else ''} {', '.join(gone)}"
        run.tell(f"{names} removed to make space for {what} (about {size(need)})")
