"""Samples the jobs at the gateway, for what the health server tells of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ....host.system.program_files import PROGRAM
from ..model.answers import JobQueue, QueuedRun, QueueEnd, QueueError, QueueStuck
from ..model.settings import Settings
from . import gateway_link, job_pictures
from .gateway_link import Silent

PATH = "/api/v2/queue/overview"
TIMEOUT = 1.5
"""Seconds that the gateway may take; it answers from memory."""
LONGEST = 1 << 18
"""Bytes of its answer."""
MOST_RUNS, MOST_ENDED, MOST_STUCK = 32, 12, 8


def sample(settings: Settings) -> JobQueue | None:
    """The jobs now; None: they are off."""
    if settings.jobs is None or settings.jobs.gateway is None:
        return None
    try:
        told = gateway_link.ask(settings.jobs.gateway, PATH, TIMEOUT, LONGEST).json()
        return read(told)
    except Silent as silent:
        return JobQueue(ok=False, reason=str(silent))
    except (LookupError, TypeError, AttributeError, ValueError, RecursionError) as error:
        kind = type(error).__name__
        return JobQueue(ok=False, reason=f"the gateway's answer isn't what it should be: {kind}")


def read(told: Mapping[str, Any]) -> JobQueue:
    """The jobs as the gateway tells them. Raises LookupError, TypeError, AttributeError and
    ValueError when it doesn't."""
    queue = JobQueue(
        ok=True,
        paused=told["paused"],
        waiting=told["waiting"],
        oldest=told["oldest"],
        running=told["running"],
        dead=told["dead"],
        stuck=[QueueStuck.model_validate(each) for each in told["stuck"][:MOST_STUCK]],
        runs=[_run(each) for each in told["runs"][:MOST_RUNS]],
        ended=[_end(each) for each in told["ended"][:MOST_ENDED]],
    )
    return queue.model_copy(update={"advice": f"{PROGRAM} jobs --failed"}) if queue.dead else queue


def _run(told: Mapping[str, Any]) -> QueuedRun:
    at = told["preview_at"]
    preview = job_pictures.preview(told["id"], at) if at else ""
    return QueuedRun.model_validate({**told, "preview": preview})


def _end(told: Mapping[str, Any]) -> QueueEnd:
    error, output = told["error"], told["output"] or {}
    is_picture = output.get("content_type") in job_pictures.KINDS
    return QueueEnd(
        id=told["id"],
        status=told["status"],
        instance=told["instance"],
        ended=told["ended"],
        seconds=told["seconds"],
        error=QueueError.model_validate(error) if error else None,
        picture=job_pictures.picture(output["id"]) if is_picture else "",
        thumbnail=job_pictures.thumbnail(output["id"]) if is_picture else "",
    )
