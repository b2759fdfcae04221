"""Waiting for an event, or for some time."""

from __future__ import annotations

import asyncio

import pytest

from comfy_machine.services.waking import woken


def test_it_ends_with_the_event_or_with_the_time() -> None:
    async def tried() -> None:
        event = asyncio.Event()
        assert not await woken(event, 0.01)
        asyncio.get_running_loop().call_later(0.01, event.set)
        assert await woken(event, 60)

    asyncio.run(tried())


def test_who_waits_is_cancelled_even_as_the_event_comes() -> None:
    async def tried() -> None:
        event = asyncio.Event()
        waiting = asyncio.create_task(woken(event, 60))
        for _ in range(3):
            await asyncio.sleep(0)
        event.set()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(tried())
