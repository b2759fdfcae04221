"""The disk fills up while doit works: it says so, and comes right once there is space."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.machines import Victims


@dataclass(frozen=True)
class FullDisk:
    """So many bytes are left on the machine's disk."""

    left: int
    upgrade: bool

    @property
    def kind(self) -> str:
        return f"a full disk, {'then an upgrade' if self.upgrade else 'then doit'}"

    def __str__(self) -> str:
        return f"{self.kind}, {self.left} bytes left"

    def do(self, victims: Victims, chance: random.Random) -> str | None:
        """How doit ended; None where the machine has no disk of its own. Raises Stuck."""
        if not victims.have_a_disk:
            return None
        victim = victims.next()
        if self.upgrade:
            victim.offer_commit()
        victim.rig.write()
        filler = victim.rig.folder / "filler"
        _fill(filler, self.left)
        try:
            run = victim.doit()
        finally:
            filler.unlink()
        victim.settle()
        return f"doit ended with {run.code}"


def cases(chance: random.Random) -> Iterator[FullDisk]:
    """Without end; rather little space than much."""
    while True:
        yield FullDisk(int(10 ** chance.uniform(0, 7.5)), chance.random() < 0.8)


def _fill(filler: Path, left: int) -> None:
    """Leave so many bytes, or a little less."""
    with filler.open("wb", buffering=0) as opened:
        with contextlib.suppress(OSError):
            while True:
                opened.write(bytes(1 << 20))
        opened.truncate(max(opened.tell() - left, 0))
