"""The network fails while doit brings something new: it ends in order, and comes right later."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from tests.chaos.machines import Stuck, Victims
from tests.chaos.relay import FAULTS


@dataclass(frozen=True)
class BadNetwork:
    """A fault of some or all connections while a model or a node's new commit is to come."""

    fault: str
    what: str
    chance: float

    @property
    def kind(self) -> str:
        return f"network: {self.fault}"

    def __str__(self) -> str:
        return f"{self.kind}, {self.chance:.0%} of connections, while {self.what} comes"

    def do(self, victims: Victims, chance: random.Random) -> str:
        """How doit ended. Raises Stuck."""
        victim = victims.next()
        relay = victim.offer_model(chance) if self.what == "a model" else victim.offer_commit()
        relay.fault, relay.chance = self.fault, self.chance
        try:
            run = victim.doit()
        finally:
            relay.fault = ""
        if run.code and not run.failed:
            raise Stuck(f"no task failed, and doit ended with {run.code}:\n{run.output}")
        victim.settle()
        return f"doit ended with {run.code}"


def cases(chance: random.Random) -> Iterator[BadNetwork]:
    """Without end."""
    while True:
        what = chance.choice(["a model", "a commit"])
        yield BadNetwork(chance.choice(FAULTS), what, chance.choice([0.5, 1.0]))
