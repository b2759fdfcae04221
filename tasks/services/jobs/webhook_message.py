"""What a webhook is told of the end of a job. Source of the form: Standard Webhooks 1.0.0."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timezone

from standardwebhooks.webhooks import Webhook as Signer

from .api_words import error, iso, status
from .record import Record


@dataclass(frozen=True)
class Message:
    """One request."""

    headers: dict[str, str]
    body: bytes


def message(record: Record, secret: str, now: float) -> Message:
    """What is told of this job at this time, in seconds since the epoch; signed unless `secret`
    is empty. Raises ValueError for a secret that isn't base64.

    All attempts to tell one end have one `webhook-id`, by which the receiver knows what it has
    heard before. A job that is tried again has another end.
    """
    name, at = f"{record.id}_{record.ended * 1000:.0f}", datetime.fromtimestamp(now, timezone.utc)
    body = json.dumps(_said(record), separators=(",", ":"), ensure_ascii=False)
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "comfy-machine",
        "webhook-id": name,
        "webhook-timestamp": str(int(now)),
    }
    if secret:
        headers["webhook-signature"] = Signer(secret).sign(name, at, body)
    return Message(headers, body.encode())


def _said(record: Record) -> dict[str, object]:
    word = status(record)
    return {
        "type": f"job.{word}",
        "timestamp": iso(record.ended),
        "data": {
            "id": record.id,
            "status": word,
            "created_at": iso(record.submitted),
            "started_at": iso(record.started) if record.started else None,
            "completed_at": iso(record.ended),
            "instance": record.instance or None,
            "attempt": record.counted,
            "metadata": record.labels,
            "error": error(record),
        },
    }
