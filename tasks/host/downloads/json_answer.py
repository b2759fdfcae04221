"""A JSON answer of a service, with an end of size and time."""

from __future__ import annotations

import json
import time
from typing import Any
from urllib.parse import urlsplit

from ..system.failure import Failure
from .web import Answer

LONGEST = 32 << 20
"""Bytes of an answer: the registry's versions of a node have about one million, with their
changelogs; OSV's answers at most 32 MiB."""
PATIENCE = 60.0
"""Seconds for an answer."""


def read(answer: Answer) -> tuple[int, Any]:
    """Status and content of an answer; None is the content of a refusal that isn't JSON.

    Raises Failure for an answer that is too long, takes too long, or should be JSON and isn't.
    """
    host, deadline = urlsplit(answer.url).netloc.rpartition("@")[2], time.monotonic() + PATIENCE
    body = bytearray()
    for chunk in answer.chunks():
        body += chunk
        if len(body) > LONGEST or time.monotonic() > deadline:
            raise Failure(f"{host} answers with more than can be read in {PATIENCE:g} s")
    try:
        return answer.status, json.loads(body)
    except (ValueError, RecursionError):
        if answer.status < 400:
            raise Failure(f"{host} doesn't answer with JSON: correct its address") from None
        return answer.status, None
