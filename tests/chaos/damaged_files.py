"""Every kind of file and folder below `.machine`, damaged in every way."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from tests.chaos import damage
from tests.chaos.kinds import KINDS, kind_of, names_below
from tests.chaos.machines import Victim, Victims


@dataclass(frozen=True)
class DamagedFile:
    """One of a kind is damaged, perhaps another too; then doit runs, perhaps after an edit."""

    kind: str
    damage: str
    upgrade: bool
    """Whether machine.yaml asks for something else afterwards."""
    second: tuple[str, str] | None = None
    """Another kind, and its damage."""

    def __str__(self) -> str:
        more = f"; {self.second[0]}, {self.second[1]}" if self.second else ""
        return f"{self.kind}, {self.damage}{more}{', then an upgrade' if self.upgrade else ''}"

    def do(self, victims: Victims, chance: random.Random) -> str | None:
        """Its path; None without any of the kind. Raises Stuck when it stays damaged."""
        victim = victims.next()
        done = [
            name
            for kind, how in [(self.kind, self.damage), *([self.second] if self.second else [])]
            if (name := _damage(victim, kind, how, chance))
        ]
        if not done:
            return None
        if self.upgrade:
            victim.upgrade()
        victim.settle()
        return ", ".join(done)


def cases(chance: random.Random) -> Iterator[DamagedFile]:
    """All of them, in an order of chance; then pairs without end."""
    every = [
        DamagedFile(kind.name, name, upgrade)
        for kind in KINDS
        for name in damage.ALL
        for upgrade in (False, True)
    ]
    chance.shuffle(every)
    yield from every
    while True:
        one, other = chance.sample(every, 2)
        second = other.kind, other.damage
        yield DamagedFile(one.kind, one.damage, one.upgrade, second)


def _damage(victim: Victim, kind: str, how: str, chance: random.Random) -> str | None:
    found = sorted(_named(victim, kind))
    if not found:
        return None
    name = chance.choice(found)
    path = victim.machine / name
    if path.is_symlink() and how == "mode 000":
        return None
    try:
        damage.ALL[how](path, chance)
    except PermissionError:
        # The first damage took the rights to it.
        return None
    return name


def _named(victim: Victim, kind: str) -> Iterator[str]:
    for name in names_below(victim.machine):
        if (row := kind_of(name)) and row.name == kind:
            yield name
