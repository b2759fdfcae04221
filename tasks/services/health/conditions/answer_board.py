"""The answers: composed anew from each sample, and served as often as they are asked for."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from ....host.comfyui.condition import HEALTHY
from ..model.answers import Verdict

WAITING = 512
"""Clients that may wait for an answer at once."""


@dataclass(frozen=True)
class Answer:
    """One body, with the code that belongs to it."""

    verdict: Verdict
    mask: Callable[[bytes], bytes]
    """Masks the secrets in the body."""
    sampled: float | None = None
    """When it was sampled, of the monotonic clock; None where age means nothing."""
    _cache: dict[str, bytes] = field(default_factory=dict, compare=False, repr=False)

    @property
    def healthy(self) -> bool:
        return self.verdict.status in HEALTHY

    @property
    def code(self) -> int:
        return 200 if self.healthy else 503

    @property
    def rest(self) -> bytes:
        """The body without its age."""
        if "rest" not in self._cache:
            body = self.verdict.model_dump_json(exclude={"age"})
            self._cache["rest"] = self.mask(body.encode())
        return self._cache["rest"]

    @property
    def body(self) -> bytes:
        """JSON. Only the age is new each time."""
        if self.sampled is None:
            return self.rest
        age = max(0.0, time.monotonic() - self.sampled)
        return b'{"age":%.2f,%b' % (age, self.rest[1:])


@dataclass(frozen=True)
class Answers:
    """All answers of one moment."""

    overview: Answer
    installation: Answer
    instances: Answer
    models: Answer
    by_gpu: Mapping[int, Answer]
    ready: Answer
    """Whether some instance takes jobs, and no more than that: clients without a token get it."""
    at: float
    """Of the monotonic clock."""


class Board:
    """The last answers, and a way to wait for the next ones."""

    def __init__(self, first: Answers) -> None:
        self.answers = first
        self._loop: asyncio.AbstractEventLoop | None = None
        self._next = asyncio.Event()
        self._waiting = 0
        self.room = WAITING
        self.ended = asyncio.Event()
        """This server ends: let all clients go."""

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Use this loop for the clients that wait."""
        self._loop = loop

    def publish(self, answers: Answers) -> None:
        """From any thread."""
        self.answers = answers
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._turn)

    def end(self) -> None:
        """Let go of all clients that wait or follow; may be called in a signal handler."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self.ended.set)
            self._loop.call_soon_threadsafe(self._turn)

    async def wait(
        self,
        wanted: Callable[[Answers], bool],
        seconds: float,
        gone: Callable[[], Awaitable[bool]],
    ) -> None:
        """Wait until the answers are as wanted, time is up, or the client is gone.

        Not at all when too many wait already: this client gets its answer at once.
        """
        deadline = time.monotonic() + seconds
        if self._waiting >= self.room:
            return
        self._waiting += 1
        try:
            while not wanted(self.answers) and (left := deadline - time.monotonic()) > 0:
                await settle(self._next, left)
                if self.ended.is_set() or await gone():
                    return
        finally:
            self._waiting -= 1

    def _turn(self) -> None:
        before, self._next = self._next, asyncio.Event()
        before.set()


async def settle(event: asyncio.Event, seconds: float) -> None:
    """Wait for an event, for so many seconds at most."""
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except asyncio.TimeoutError:
        return


class Since:
    """When each thing came into its present state, in seconds since the epoch."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[str, float]] = {}
        self._lock = threading.Lock()

    def of(self, what: str, status: str) -> float:
        with self._lock:
            known = self._known.get(what)
            if known is None or known[0] != status:
                known = self._known[what] = (status, round(time.time(), 1))
            return known[1]
