"""Room for what is to be made: where there is too little, the oldest kept generations go first."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from ..host.generations import kept_generations
from ..host.storage import digest_folders
from ..host.storage.disk_space import Room, free
from ..host.system import files
from ..host.system.failure import Failure
from ..host.system.units import size
from .run import Run


@contextmanager
def room(run: Run, what: str, folder: Path, need: int) -> Iterator[None]:
    """While `folder` is made, which takes about `need` bytes.

    That is an estimate, so it lets old generations go and fails nothing; a failure on a volume
    that proved too small says so, and none leaves an unfinished `folder` behind. Raises Failure.
    """
    volume = run.layout.machine
    _make(run, what, need)
    short = free(volume) < need
    try:
        yield
    except Exception as error:
        there = free(volume)
        if not digest_folders.read(folder):
            files.remove(folder)
        said = f"{what} needs about {size(need)}, {volume} has {size(there)} left: make room there"
        if there == 0:
            raise Failure(said) from error
        if short and isinstance(error, Failure):
            raise Failure(f"{error}; {said}", error.log) from error
        raise


def room_for_models(run: Run, store: Path) -> Room:
    """Where they are to lie; it is made, if generations lie on the same volume."""
    here = run.layout.machine
    same = here.is_dir() and here.stat().st_dev == store.stat().st_dev
    return Room(store, partial(_make, run, "the models") if same else None)


def _make(run: Run, what: str, need: int) -> None:
    if gone := kept_generations.make_room(run.layout, need):
        names = f"generation{'s' if len(gone) > 1 else ''} {', '.join(gone)}"
        run.tell(f"{what} need{'' if what.endswith('s') else 's'} about {size(need)}: {names} went")
