"""States, times and errors in the words of the Comfy API v2, for its clients and for webhooks."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from .record import Record, State

STATUS: dict[State, str] = {
    "waiting": "queued",
    "leased": "running",
    "succeeded": "succeeded",
    "failed": "failed",
    "cancelled": "canceled",
    "dead": "failed",
}


def status(record: Record) -> str:
    """The API's word for a state."""
    return "canceling" if record.state == "leased" and record.cancel else STATUS[record.state]


def iso(at: float) -> str:
    """A time with its zone."""
    return datetime.fromtimestamp(at, timezone.utc).isoformat()


def error(record: Record) -> dict[str, Any] | None:
    """Why it didn't succeed; None: it did, or hasn't ended."""
    if record.error is None:
        return None
    return {
        "code": record.error.type,
        "message": record.error.message,
        "node_id": record.error.node or None,
        "class_type": record.error.node_type or None,
        "traceback": None,
    }
