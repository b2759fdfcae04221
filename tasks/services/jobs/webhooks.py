"""Tells the ends of jobs to those who want to hear of them, again and again until they have.

How often was tried, and when it is tried again, stands in the record: another scheduler goes on
from there. One that ends between telling and noting it tells twice.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from urllib.request import getproxies, proxy_bypass

import aiohttp
from yarl import URL

from ..waking import woken
from .job_store import Stored
from .record import ENDED, Record, Webhook
from .webhook_message import message

SECRET = "JOBS_WEBHOOK_SECRET"
"""The variable with what messages are signed with."""
WAITS = (1.0, 5.0, 30.0, 120.0, 600.0, 3600.0)
"""Seconds after the first, second, … attempt; nothing follows the one after the last."""
ANSWER = 10.0
"""Seconds that a receiver may take to answer."""
AT_ONCE, AT_ONE_HOST = 16, 4
"""Requests at the same time, and those of them to one host: a slow one delays no other."""
LOOK = 0.5
"""Seconds between two looks at what is due, if nothing happens."""
UNNOTED = 5.0
"""Seconds after which what couldn't be noted is told again."""
GONE = 410
"""The status with which a receiver wants no more."""
LONGEST = 200
"""Characters of a reason."""
Step = Callable[[Stored, Record], Awaitable[object]]


class Webhooks:
    """All ends that are still to be told. `step` replaces a record in the store, and leads to a
    `note` of what is there now."""

    def __init__(self, secret: str, step: Step) -> None:
        self._secret, self._step = secret, step
        self._pending: dict[str, Stored] = {}
        self._lines: dict[str, list[tuple[float, str]]] = {}
        """Host → a heap of time and id; those that are no longer due then are removed when they
        come first."""
        self._on_way: dict[str, asyncio.Task[None]] = {}
        self._busy: Counter[str] = Counter()
        """Host → requests to it."""
        self._wake = asyncio.Event()

    def note(self, stored: Stored) -> None:
        """A job is as this record says."""
        record = stored.record
        hook = record.webhook
        if hook is None or record.state not in ENDED or hook.state != "pending":
            self.forget(record.id)
            return
        self._pending[record.id] = stored
        if record.id not in self._on_way:
            self._queue(record.id, hook.due)

    def forget(self, job: str) -> None:
        """Nothing is to be told of this job."""
        self._pending.pop(job, None)

    async def tell(self, may: Callable[[], bool]) -> None:
        """Tell what is due, for ever; nothing while it `may` not be, since the store is away."""
        timeout = aiohttp.ClientTimeout(total=ANSWER)
        async with aiohttp.ClientSession(
            timeout=timeout, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False
        ) as session:
            try:
                while True:
                    if may():
                        self._begin_due(session)
                    await woken(self._wake, LOOK)
                    self._wake.clear()
            finally:
                for task in self._on_way.values():
                    task.cancel()
                await asyncio.gather(*self._on_way.values(), return_exceptions=True)

    def _queue(self, job: str, due: float) -> None:
        heapq.heappush(self._lines.setdefault(_host(self._pending[job]), []), (due, job))
        self._wake.set()

    def _begin_due(self, session: aiohttp.ClientSession) -> None:
        now = time.time()
        for host, line in [*self._lines.items()]:
            while line and line[0][0] <= now and self._has_place(host):
                _, job = heapq.heappop(line)
                stored = self._pending.get(job)
                if stored and job not in self._on_way and _hook(stored).due <= now:
                    self._busy[host] += 1
                    self._on_way[job] = asyncio.ensure_future(self._attempt(session, stored))
            if not line:
                del self._lines[host]

    def _has_place(self, host: str) -> bool:
        return len(self._on_way) < AT_ONCE and self._busy[host] < AT_ONE_HOST

    async def _attempt(self, session: aiohttp.ClientSession, stored: Stored) -> None:
        record = stored.record
        try:
            status, why = await self._post(session, record)
            hook = _after(_hook(stored), status, why, time.time())
            await self._step(stored, record.changed(webhook=hook))
        finally:
            del self._on_way[record.id]
            self._leave(_host(stored))
            if (left := self._pending.get(record.id)) is stored:
                # The store didn't take the note.
                self._queue(record.id, time.time() + UNNOTED)
            elif left:
                self._queue(record.id, _hook(left).due)

    def _leave(self, host: str) -> None:
        self._busy[host] -= 1
        if not self._busy[host]:
            del self._busy[host]
        self._wake.set()

    async def _post(self, session: aiohttp.ClientSession, record: Record) -> tuple[int, str]:
        """The status of the answer, 0 without one, and what is wrong with it; empty: nothing."""
        assert record.webhook
        url, said = record.webhook.url, message(record, self._secret, time.time())
        try:
            async with session.post(
                URL(url), data=said.body, headers=said.headers, allow_redirects=False,
                proxy=_proxy(url),
            ) as answer:  # fmt: skip
                good = 200 <= answer.status < 300
                return answer.status, "" if good else f"it answered with code {answer.status}"
        except asyncio.TimeoutError:
            return 0, f"no answer within {ANSWER:g} s"
        except (OSError, aiohttp.ClientError, ValueError) as error:
            return 0, (str(error) or type(error).__name__)[:LONGEST]


def _after(hook: Webhook, status: int, why: str, now: float) -> Webhook:
    """What is to be noted after an attempt."""
    attempts = hook.attempts + 1
    if not why:
        return hook.model_copy(update={"attempts": attempts, "told": now, "error": ""})
    last = attempts > len(WAITS) or status == GONE
    due = 0.0 if last else now + WAITS[attempts - 1]
    return hook.model_copy(
        update={"attempts": attempts, "due": due, "given_up": last, "error": why}
    )


def _hook(stored: Stored) -> Webhook:
    assert stored.record.webhook
    return stored.record.webhook


def _host(stored: Stored) -> str:
    return URL(_hook(stored).url).authority


def _proxy(url: str) -> str | None:
    """As the environment names it. aiohttp would read passwords of ~/.netrc with it."""
    there = URL(url)
    return None if proxy_bypass(there.host or "") else getproxies().get(there.scheme)
