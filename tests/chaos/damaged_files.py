"""Every kind of file and folder below `.machine`, damaged in every way."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from tests.chaos import damage
from tests.chaos.kinds import KINDS, kind_of, names_below
from tests.chaos.machines import Victim


@dataclass(frozen=True)
class Case:
    kind: str
    damage: str
    upgrade: bool
    """Whether machine.yaml asks for something else afterwards."""

    def __str__(self) -> str:
        return f"{self.damage}{', then an upgrade' if self.upgrade else ''}"


def cases(chance: random.Random) -> list[Case]:
    """All of them, in an order of chance."""
    every = [
        Case(kind.name, name, upgrade)
        for kind in KINDS
        for name in damage.ALL
        for upgrade in (False, True)
    ]
    chance.shuffle(every)
    return every


def do(victim: Victim, case: Case, chance: random.Random) -> str | None:
    """Damage one; its name, None without any of the kind. Raises Stuck when it stays damaged."""
    name = _choose(victim, case.kind, chance)
    if name is None:
        return None
    path = victim.machine / name
    if path.is_symlink() and case.damage == "mode 000":
        return None
    damage.ALL[case.damage](path, chance)
    if case.upgrade:
        victim.upgrade()
    victim.settle()
    return name


def _choose(victim: Victim, kind: str, chance: random.Random) -> str | None:
    found = sorted(_named(victim, kind))
    return chance.choice(found) if found else None


def _named(victim: Victim, kind: str) -> Iterator[str]:
    for name in names_below(victim.machine):
        if (row := kind_of(name)) and row.name == kind:
            yield name
