"""Jobs in words."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

from ...host.system.units import duration

SHORT = 8
"""Characters of an id that tell one job from another, among a few thousand."""


def why(job: dict[str, Any]) -> str:
    """Why a job failed, or waits in vain; empty: it doesn't."""
    if waits := job.get("waits_because"):
        return f"waits: {waits}"
    error = job.get("error")
    if not error:
        return ""
    node = f"node {error['node_id']} ({error['class_type']}): " if error.get("node_id") else ""
    return f"{node}{error['code']}: {error['message']}" if error["code"] else error["message"]


def share(job: dict[str, Any]) -> float | None:
    """How much of a running job is done, from 0 to 1; None: not known."""
    value = (job.get("progress") or {}).get("value")
    return float(value) if isinstance(value, (int, float)) else None


def state(job: dict[str, Any]) -> str:
    status = str(job["status"])
    if status == "queued" and job.get("queue_position") is not None:
        return f"queued, number {job['queue_position']}"
    done = share(job)
    return f"{status}, {done:.0%}" if status == "running" and done is not None else status


def age(job: dict[str, Any]) -> str:
    """How long ago it was submitted."""
    at = job.get("create_time") or job.get("created_at")
    seconds = time.time() - datetime.fromisoformat(str(at)).timestamp()
    return duration(max(0.0, seconds))


def told(job: dict[str, Any]) -> str:
    """Whether its webhook knows of its end; empty: it has none, or hasn't ended."""
    hook = job.get("webhook")
    if not hook or not job.get("completed_at"):
        return ""
    times = f"{hook['attempts']} attempt{'' if hook['attempts'] == 1 else 's'}"
    if hook["status"] == "delivered":
        return f"{hook['url']} was told, with {times}"
    if hook["status"] == "failed":
        return f"{hook['url']} wasn't told, with {times}: {hook['error']}"
    error = f", {times} so far: {hook['error']}" if hook["attempts"] else ""
    return f"{hook['url']} will be told{error}"


def describe(job: dict[str, Any]) -> list[str]:
    """A line for each thing that is known of it."""
    metrics = job.get("metrics") or {}
    times = [
        f"{what} {duration(metrics[key] / 1000)}"
        for what, key in (("waited", "queue_ms"), ("ran", "execution_ms"))
        if metrics.get(key) is not None
    ]
    lines = [
        f"{job['id']}  {state(job)}",
        f"submitted {age(job)} ago" + (f" by {job['owner']}" if job.get("owner") else ""),
        f"on {job['instance']}, attempt {job['attempt']}" if job.get("instance") else "",
        ", ".join(times),
        why(job),
        told(job),
        *(f"{each['name']}  {each['url']}" for each in job.get("outputs") or []),
    ]
    return [line for line in lines if line]
