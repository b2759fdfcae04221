"""The job that a worker has in hand."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from .job_store import Stored


@dataclass
class Task:
    """The job of this worker."""

    stored: Stored
    adopted: bool
    running: asyncio.Task[None] | None = None
    bringing: asyncio.Task[bytes] | None = None
    """What it reads is being fetched."""
    ending: asyncio.Task[None] | None = None
    """It was cancelled, and is being ended."""
    in_doubt: bool = False
    """Its lease may have ended meanwhile."""
    given_back: bool = False
    """This worker ends it to give it back: that counts no attempt."""

    @property
    def id(self) -> str:
        return self.stored.record.id

    @property
    def attempt(self) -> int:
        return self.stored.record.attempt
