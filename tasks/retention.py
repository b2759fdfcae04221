"""Room for what is to be made: where there is too little, the oldest kept generations go first."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tasks.engine.said import tell
from tasks.host import files, made, retention
from tasks.host.failure import Failure
from tasks.host.progress import size
from tasks.spec import Machine


@contextmanager
def room(machine: Machine, what: str, folder: Path, need: int) -> Iterator[None]:
    """While `folder` is made, which takes about `need` bytes.

    That is an estimate, so it lets old generations go and fails nothing; a failure on a volume
    that proved too small says so, and leaves nothing of `folder` behind. Raises Failure.
    """
    volume = machine.layout.machine
    if gone := retention.make_room(machine.layout, need):
        names = f"generation{'s' if len(gone) > 1 else ''} {', '.join(gone)}"
        tell(f"{what} needs about {size(need)}: {names} went to make room for it")
    short = retention.free(volume) < need
    try:
        yield
    except Exception as error:
        there = retention.free(volume)
        said = f"{what} needs about {size(need)}, {volume} has {size(there)} left: make room there"
        if there == 0:
            if not made.read(folder):
                files.remove(folder)
            raise Failure(said) from error
        if short and isinstance(error, Failure):
            raise Failure(f"{error}; {said}", error.log) from error
        raise
