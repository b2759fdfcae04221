"""The instances, as their workers announce them: where they are and what they are like."""

from __future__ import annotations

import asyncio
import time
from typing import Any
from urllib.parse import urlsplit

from nats.aio.msg import Msg

from ...host.comfyui import api
from ..jobs.demand import Instance
from ..jobs.job_store import Store
from ..jobs.worker_protocol import Announcement, Inventory
from ..jobs.workflow_need import ModelIndex
from .class_union import union

SILENCE = 60.0
"""Seconds after which an instance that isn't announced any more is forgotten."""
QUIET = 5.0
"""Seconds after which it gets no job; each is announced within them."""
ANSWER = 20.0
"""Seconds that an instance may take to list its node classes."""
KEPT = 60.0
"""Seconds for which such a list is used again."""


class AnnouncedInstances:
    """Each is announced about once a second."""

    def __init__(self, silence: float = SILENCE) -> None:
        self._silence = silence
        self._since: float | None = None
        self._heard: dict[str, tuple[float, Announcement]] = {}
        self._began = time.monotonic()
        self._classes: tuple[float, frozenset[str], dict[str, Any]] = (0.0, frozenset(), {})
        self._asking = asyncio.Lock()
        self._inventories: dict[str, tuple[str, Inventory]] = {}
        """Instance → revision, and what it has."""
        self._learnt: frozenset[tuple[str, str, int | None]] = frozenset()
        self.models = ModelIndex(())
        self.having: list[Instance] = []
        """What each instance has, as it was learnt."""

    def listen(self) -> None:
        """From now on all announcements are heard."""
        self._since = time.monotonic()

    @property
    def settled(self) -> bool:
        """Whether all that there are have been heard."""
        return self._since is not None and time.monotonic() - self._since > QUIET

    async def hear(self, message: Msg) -> None:
        """An announcement; what is none is ignored."""
        try:
            said = Announcement.model_validate_json(message.data)
        except ValueError:
            return
        self._heard[said.instance] = (time.monotonic(), said)

    def now(self) -> list[Announcement]:
        """Those that were announced lately, by name."""
        recent = time.monotonic() - self._silence
        return [said for _, (at, said) in sorted(self._heard.items()) if at > recent]

    def absent(self) -> dict[str, str]:
        """Those that take no jobs, and why."""
        late, found = time.monotonic() - QUIET, {}
        for name, (at, said) in self._heard.items():
            if said.state == "away":
                found[name] = said.why or "it is away"
            elif at < late:
                found[name] = "it isn't heard of"
        return found

    def begin_anew(self) -> None:
        """Nothing could be heard for some time."""
        self._began = time.monotonic()

    def machine_of(self, instance: str) -> str:
        """The machine of an instance; empty: it isn't known."""
        return self._heard[instance][1].machine if instance in self._heard else ""

    def has_left(self, machine: str) -> bool:
        """Whether nothing of a machine was heard for so long that it doesn't count any more. Who
        has just begun to listen can't tell."""
        heard = [at for at, said in self._heard.values() if said.machine == machine]
        return time.monotonic() - max([*heard, self._began]) > self._silence

    async def learn(self, store: Store) -> None:
        """Read what instances have, where they have announced something else than before. Raises
        nats.errors.Error."""
        now = self.now()
        learnt = frozenset((each.instance, each.inventory, each.memory) for each in now)
        if learnt == self._learnt:
            return
        for each in now:
            revision, _ = self._inventories.get(each.instance, ("", None))
            if revision != each.inventory and (found := await store.inventory(each.instance)):
                self._inventories[each.instance] = (each.inventory, found)
        there = {each.instance: each.memory for each in now}
        self._inventories = {k: v for k, v in self._inventories.items() if k in there}
        known = {name: found for name, (_, found) in self._inventories.items()}
        self.models = ModelIndex(known.values())
        self.having = [
            _instance(name, known.get(name, Inventory()), memory)
            for name, memory in sorted(there.items())
        ]
        self._learnt = learnt

    async def classes(self) -> dict[str, Any]:
        """ComfyUI's answer to /object_info: all node classes of all instances, as the union of what
        they say."""
        async with self._asking:
            there = {said.url: said.inventory for said in self.now() if said.url}
            now = frozenset(f"{url} {inventory}" for url, inventory in there.items())
            at, asked, classes = self._classes
            if classes and asked == now and time.monotonic() - at < KEPT:
                return classes
            answers = await asyncio.gather(*(asyncio.to_thread(_ask, url) for url in there))
            found = await asyncio.to_thread(union, answers)
            self._classes = (time.monotonic(), now, found)
            return found


def _instance(name: str, has: Inventory, memory: int | None) -> Instance:
    return Instance(
        name,
        classes=None if has.classes is None else frozenset(has.classes),
        models=None if has.models is None else frozenset(has.models),
        memory=memory,
    )


def _ask(url: str) -> Any:
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return api.ask(parts.hostname or "", port, "/object_info", ANSWER, scheme=parts.scheme)
