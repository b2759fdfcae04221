"""What an instance has: its classes, its models, the memory of its GPU."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from nats.errors import Error

from ...spec.layout import Layout
from . import model_sizes
from .instance_client import Away, InstanceClient
from .job_store import Store
from .worker_protocol import Inventory

AGAIN = 0.5
"""Seconds between two looks until the first one succeeds."""
TAKES_STOCK = 60.0
"""Seconds between two looks at what the instance has."""


class InstanceStock:
    """Notes in the store what the instance `name` has, and sets `changed` when that is new."""

    def __init__(
        self, instance: InstanceClient, store: Store, layout: Layout, name: str,
        changed: asyncio.Event,
    ) -> None:  # fmt: skip
        self._instance, self._store, self._layout, self._name = instance, store, layout, name
        self._changed = changed
        self._noted: Inventory | None = None
        self.memory: int | None = None
        """Bytes of its GPU."""
        self.revision = ""
        """Of what is noted; empty: nothing is yet."""

    async def watch(self) -> None:
        """Look at the classes once, at the models again and again."""
        while True:
            with suppress(Away, Error, asyncio.TimeoutError):
                self.memory = await asyncio.to_thread(self._instance.memory)
                await self._note()
            await asyncio.sleep(TAKES_STOCK if self.revision else AGAIN)

    async def _note(self) -> None:
        classes = self._noted.classes if self._noted else None
        if classes is None:
            classes = await asyncio.to_thread(self._instance.classes)
        models = await asyncio.to_thread(self._instance.models)
        sizes = await asyncio.to_thread(model_sizes.of, self._layout, models)
        stock = Inventory(classes=classes, models=models, sizes=sizes)
        if stock != self._noted:
            self.revision = await self._store.put_inventory(self._name, stock)
            self._noted = stock
            self._changed.set()
