"""Waiting for an event, or for some time."""

from __future__ import annotations

import asyncio


async def woken(event: asyncio.Event, seconds: float) -> bool:
    """Return once the event is set, or after so many seconds; whether it is set.

    Before Python 3.12 `asyncio.wait_for` may swallow that it is cancelled, if the event is set at
    the same time.
    """
    waiting = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait([waiting], timeout=seconds)
    finally:
        waiting.cancel()
    return event.is_set()
