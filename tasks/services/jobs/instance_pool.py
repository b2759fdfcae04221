"""The instances as their workers announced them, and what is on its way to each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .demand import Instance
from .worker_protocol import Announcement, Inventory

SILENT = 5.0
"""Seconds without an announcement after which an instance gets no job."""
FORGOTTEN = 60.0
"""Seconds without one after which it is no more counted among those there are."""


@dataclass
class _Member:
    said: Announcement
    heard: float
    idle_since: float | None = None
    given: str = ""
    """The job that is on its way to it."""
    known_until: int = 0
    """Announcements of the session up to this number are older than an answer to an order."""
    classes: frozenset[str] | None = None
    models: frozenset[str] | None = None
    revision: str = ""
    """Of the inventory that says so."""


class Pool:
    """All instances; times are in seconds, by one clock."""

    def __init__(self) -> None:
        self._members: dict[str, _Member] = {}

    def hear(self, said: Announcement, now: float) -> None:
        """Note an announcement; an older one changes nothing."""
        member = self._members.get(said.instance)
        if member is None:
            member = self._members[said.instance] = _Member(said, now)
        elif member.said.session != said.session:
            member.known_until, member.given = 0, ""
        elif said.number <= max(member.known_until, member.said.number - 1):
            member.heard = now
            return
        member.said, member.heard = said, now
        if said.state != "idle":
            member.idle_since = None
        elif member.idle_since is None:
            member.idle_since = now

    def lacks_inventory(self, instance: str) -> bool:
        """Whether it announced another inventory than the one that is known."""
        member = self._members[instance]
        return bool(member.said.inventory) and member.said.inventory != member.revision

    def describe(self, instance: str, inventory: Inventory, revision: str) -> None:
        """Note what an instance has."""
        member = self._members[instance]
        member.classes = None if inventory.classes is None else frozenset(inventory.classes)
        member.models = None if inventory.models is None else frozenset(inventory.models)
        member.revision = revision

    def give(self, instance: str, job: str) -> None:
        """A job is on its way to the instance."""
        self._members[instance].given = job

    def settle(self, instance: str, number: int, taken: bool) -> None:
        """The instance answered: what it announced up to `number` came before that.

        One that refused gets no other job before it announces itself again.
        """
        if (member := self._members.get(instance)) is None:
            return
        member.given = ""
        member.known_until = max(member.known_until, number)
        member.idle_since = None
        if not taken:
            member.said = member.said.model_copy(update={"state": "away"})

    def release(self, instance: str) -> None:
        """Nothing is on its way to it any more, and nothing was asked."""
        if member := self._members.get(instance):
            member.given = ""

    def forget(self, now: float) -> None:
        """Drop those that have been silent for long."""
        gone = [name for name, each in self._members.items() if now - each.heard > FORGOTTEN]
        for name in gone:
            del self._members[name]

    def instances(self, now: float) -> list[Instance]:
        """Those that can have a job, now or when they are idle again."""
        return [_instance(name, each) for name, each in self._alive(now)]

    def known(self) -> list[Instance]:
        """All that there are, also those that are silent or away."""
        return [_instance(name, each) for name, each in self._members.items()]

    def _alive(self, now: float) -> Iterator[tuple[str, _Member]]:
        for name, each in self._members.items():
            if now - each.heard <= SILENT and each.said.state != "away":
                yield name, each


def _instance(name: str, member: _Member) -> Instance:
    said = member.said
    return Instance(
        name,
        member.classes,
        member.models,
        said.memory,
        said.checkpoint,
        None if member.given or said.state != "idle" else member.idle_since,
    )
