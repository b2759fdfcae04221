"""Clients post jobs while an instance is replaced: what is accepted runs once, and is answered."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from tests.chaos.machines import Stuck, Victims
from tests.customers import customers, ran


@dataclass(frozen=True)
class Roll:
    """An upgrade under two clients."""

    kind = "a roll under clients"

    def __str__(self) -> str:
        return self.kind

    def do(self, victims: Victims, chance: random.Random) -> str:
        """How many jobs there were. Raises Stuck."""
        victim = victims.next()
        notes = victim.rig.folder / "notes"
        with customers([victim.rig.port(0)], notes) as two:
            victim.upgrade()
            victim.settle()
        if lost := [why for each in two for why in each.lost]:
            raise Stuck(f"accepted, and no answer: {', '.join(lost)}")
        times = ran(two, notes)
        if wrong := {job: count for job, count in times.items() if count != 1}:
            raise Stuck(f"accepted, and not run once: {wrong}")
        notes.unlink()
        return f"{len(times)} jobs"


def cases(chance: random.Random) -> Iterator[Roll]:
    """Without end."""
    while True:
        yield Roll()
