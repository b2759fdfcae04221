"""Watches GPUs: one that vanished, or reports errors of its hardware, is cordoned."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..host.pm2 import pm2
from ..host.system import cordons, files, gpu
from ..host.system.gpu import Gpu
from ..host.system.gpu_errors import GpuErrors
from ..host.system.run_lock import RunLock
from ..spec.layout import Layout
from .saying import say

LOOK_EVERY = 10.0
"""Seconds between two looks at all GPUs."""


@dataclass(frozen=True)
class Card:
    """The whole GPU of an instance, and the workers that end with that."""

    gpu: int
    name: str
    workers: tuple[str, ...]


class GpuWatch:
    """All GPUs of a machine that instances have as a whole."""

    def __init__(self, layout: Layout, cards: Sequence[Card], *, pinned: bool, acts: bool) -> None:
        self._layout = layout
        self._cards = cards
        self._pinned = pinned
        self._acts = acts
        self._errors: GpuErrors | None = None
        self._seen: dict[int, str] = {}
        """The UUID of each GPU when it was sound."""
        self._suspected: dict[int, str] = {}
        """Why a GPU looked wrong the last time: only the second time counts."""
        self._wrong: dict[int, str] = {}
        self._told: set[int] = set()
        self._next = 0.0

    def step(self) -> None:
        """Raises Failure when NVML doesn't work."""
        self._errors = self._errors or GpuErrors()
        if found := self._errors.read():
            here = gpu.inventory()
            for each in self._cards:
                card = self._of(each, here)
                xids = [xid.number for xid in found if card and xid.index == card.index]
                if xids:
                    self._wrong[each.gpu] = f"{card} reported Xid {xids[0]} (see dmesg)"
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + LOOK_EVERY
            self._look(gpu.inventory())
        for each in self._cards:
            if each.gpu in self._wrong:
                self._cordon(each, self._wrong[each.gpu])

    def _of(self, card: Card, here: Sequence[Gpu]) -> Gpu | None:
        """Its GPU: by the UUID that it was seen or is recorded with, else by its index."""
        pins: Mapping[str, str] = {}
        if self._pinned:
            pins = files.read_receipt(self._layout.gpus, gpus=dict).get("gpus", {})
        uuid = self._seen.get(card.gpu) or pins.get(card.name)
        found = gpu.of(here, card.gpu, uuid)
        if found is None and not self._pinned and card.gpu < len(here) and not here[card.gpu].uuid:
            # A lost GPU has no UUID, and keeps its index.
            return here[card.gpu]
        return found

    def _look(self, here: Sequence[Gpu]) -> None:
        for each in self._cards:
            card, why = self._of(each, here), None
            if card is None and each.gpu in self._seen:
                why = f"GPU {each.gpu} ({self._seen[each.gpu]}) vanished"
            elif card is not None and card.trouble:
                why = f"{card}, NVML says: {card.trouble}"
            elif card is not None:
                self._seen[each.gpu] = card.uuid
            if why is None:
                self._suspected.pop(each.gpu, None)
            elif each.gpu in self._suspected:
                self._wrong.setdefault(each.gpu, why)
            else:
                self._suspected[each.gpu] = why

    def _cordon(self, card: Card, why: str) -> None:
        if not self._acts:
            if card.gpu not in self._told:
                say(f"{card.name}: {why}")
            self._told.add(card.gpu)
            return
        if RunLock(self._layout.workspace).holder() is not None:
            # A run may be starting it: later.
            return
        del self._wrong[card.gpu]
        if cordons.add(self._layout, card.gpu, why, by_hand=False):
            say(f"{card.name} is stopped, and its GPU cordoned: {why}")
            for ending in ({*card.workers}, {card.name}):
                pm2.delete(self._layout, ending, "cordoned")
