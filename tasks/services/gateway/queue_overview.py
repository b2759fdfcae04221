"""What waits, runs and has ended last, in one small answer: what a page shows of the jobs."""

from __future__ import annotations

import asyncio
import time
from itertools import islice
from typing import Any

from nats.errors import Error

from ..jobs.api_words import status
from ..jobs.record import Record
from .job_answers import PREFIX
from .job_desk import JobDesk
from .output_files import OutputFile, outputs_of
from .refused import Refused
from .waiting_reasons import Stuck

MOST_RUNNING = 32
"""Jobs that run and are described: a fleet has more of them than a page shows."""
MOST_ENDED = 12
MOST_REASONS = 8
"""Reasons for which jobs wait in vain."""
STUCK_FOR = 2.0
"""Seconds for which these are not looked for anew: ten thousand jobs take a tenth of one."""
OUTPUTS = 100
"""Outputs of a job among which the first picture is looked for."""
LONGEST = 500
"""Characters of a text."""
PAUSED_IN = 0.5
"""Seconds that the store may take to say whether jobs are paused."""
Json = dict[str, Any]


class QueueOverview:
    """Made from what the gateway holds in memory. Times are in seconds since the epoch, durations
    in seconds."""

    def __init__(self, desk: JobDesk) -> None:
        self._desk = desk
        self._stuck: tuple[float, list[Stuck]] = (float("-inf"), [])

    async def told(self, base: str) -> Json:
        """The answer; `base` begins its links."""
        view, paused = self._desk.view, await self._is_paused()
        oldest, running = view.oldest(), view.running()
        await self._desk.learn()
        return {
            "paused": paused,
            "waiting": view.waiting,
            "oldest": oldest,
            "oldest_waiting_seconds": max(0.0, time.time() - oldest) if oldest else None,
            "running": len(running),
            "dead": view.dead,
            "stuck": [_stuck(each) for each in self._in_vain()[:MOST_REASONS]],
            "runs": [self._run(each) for each in running[:MOST_RUNNING]],
            "ended": [_end(each, base) for each in view.last_ended(MOST_ENDED)],
        }

    async def _is_paused(self) -> bool | None:
        """None: the store doesn't say."""
        try:
            return await asyncio.wait_for(self._desk.is_paused(), PAUSED_IN)
        except (asyncio.TimeoutError, Error, Refused):
            return None

    def _in_vain(self) -> list[Stuck]:
        at, found = self._stuck
        if time.monotonic() - at > STUCK_FOR:
            found = self._desk.reasons.stuck(self._desk.view.those_waiting())
            self._stuck = (time.monotonic(), found)
        return found

    def _run(self, record: Record) -> Json:
        progress = self._desk.view.progress(record.id)
        return {
            "id": record.id,
            "instance": record.instance[:LONGEST],
            "owner": record.owner[:LONGEST],
            "since": record.started,
            "progress": progress.share if progress else None,
            "node": progress.node[:LONGEST] if progress else "",
            "preview_at": progress.shown_at or None if progress else None,
        }


def _stuck(stuck: Stuck) -> Json:
    return {
        "why": stuck.why[:LONGEST],
        "jobs": stuck.jobs,
        "id": stuck.first.id,
        "since": stuck.first.submitted,
    }


def _end(record: Record, base: str) -> Json:
    ran = max(0.0, record.ended - record.started) if record.started else None
    return {
        "id": record.id,
        "status": status(record),
        "instance": record.instance[:LONGEST],
        "ended": record.ended,
        "seconds": ran,
        "error": _error(record),
        "output": _output(record, base),
    }


def _error(record: Record) -> Json | None:
    error = record.error
    if error is None:
        return None
    about = {"node": error.node, "node_type": error.node_type, "type": error.type}
    cut = {name: text[:LONGEST] for name, text in about.items()}
    return {**cut, "message": error.message[:LONGEST]}


def _output(record: Record, base: str) -> Json | None:
    """The first picture, or the first output where there is no picture."""
    outputs = [*islice(outputs_of(record, record.outputs), OUTPUTS)]
    first: OutputFile | None = next(
        (each for each in outputs if each.content_type.startswith("image/")),
        outputs[0] if outputs else None,
    )
    if first is None:
        return None
    url = f"{base}{PREFIX}/assets/{first.id}/content"
    return {"id": first.id, "url": url, "content_type": first.content_type}
