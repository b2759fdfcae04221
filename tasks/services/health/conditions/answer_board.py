"""The answers: composed once per sample, served on every request."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ....host.comfyui.condition import HEALTHY
from ...waking import woken
from ..model.answers import Verdict

MOST_WAITING = 512
"""Clients that may wait for an answer at once."""


@dataclass(frozen=True)
class Answer:
    """A body and its status code."""

    verdict: Verdict
    mask: Callable[[bytes], bytes]
    """Masks the secrets in the body."""
    sampled: float | None = None
    """When it was sampled, by the monotonic clock; None: the answer has no age."""
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
        """JSON. Only the age differs from call to call."""
        if self.sampled is None:
            return self.rest
        age = max(0.0, time.monotonic() - self.sampled)
        return b'{"age":%.2f,%b' % (age, self.rest[1:])


@dataclass(frozen=True)
class Answers:
    """All answers of one composition."""

    overview: Answer
    installation: Answer
    instances: Answer
    models: Answer
    by_gpu: Mapping[int, Answer]
    ready: Answer
    """Whether an instance takes jobs, and nothing else: clients without a token get it."""
    at: float
    """By the monotonic clock."""
    seen: float
    """When the oldest sample in them began, by the monotonic clock."""


class Board:
    """The last answers, and a way to wait for the next."""

    def __init__(self, first: Answers) -> None:
        self.answers = first
        self._loop: asyncio.AbstractEventLoop | None = None
        self._next = asyncio.Event()
        self._waiting = 0
        self.most_waiting = MOST_WAITING
        self.ended = asyncio.Event()
        """Set when this server ends: disconnect all clients."""

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Set the event loop of the clients that wait."""
        self._loop = loop

    def publish(self, answers: Answers) -> None:
        """May be called from any thread."""
        self.answers = answers
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._notify)

    def end(self) -> None:
        """Disconnect all clients that wait or follow; may be called in a signal handler."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self.ended.set)
            self._loop.call_soon_threadsafe(self._notify)

    async def wait(
        self,
        is_wanted: Callable[[Answers], bool],
        seconds: float,
        is_disconnected: Callable[[], Awaitable[bool]],
    ) -> None:
        """Wait until the answers are as wanted, time is up, or the client has disconnected.

        Returns at once when too many clients wait already.
        """
        deadline = time.monotonic() + seconds
        if self._waiting >= self.most_waiting:
            return
        self._waiting += 1
        try:
            while not is_wanted(self.answers) and (left := deadline - time.monotonic()) > 0:
                await woken(self._next, left)
                if self.ended.is_set() or await is_disconnected():
                    return
        finally:
            self._waiting -= 1

    def _notify(self) -> None:
        current, self._next = self._next, asyncio.Event()
        current.set()


class Since:
    """Since when each thing has had its present status, in seconds since the epoch."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[str, float]] = {}
        self._many: dict[str, dict[str, float]] = {}
        self._lock = threading.Lock()

    def of_all(self, what: str, statuses: Sequence[str]) -> list[float]:
        """Since when one thing has had each of these, different ones, at the same time."""
        with self._lock:
            last, now = self._many.get(what, {}), round(time.time(), 1)
            self._many[what] = {status: last.get(status, now) for status in statuses}
            return [*self._many[what].values()]

    def of(self, what: str, status: str) -> float:
        with self._lock:
            last = self._last.get(what)
            if last is None or last[0] != status:
                last = self._last[what] = (status, round(time.time(), 1))
            return last[1]
