"""Civitai's pages: a model's page means its newest version, until machine.lock pins one."""

from __future__ import annotations

import json
import re
from typing import Any

from ..system.failure import Failure
from .web import Answer, Web

_PAGE = re.compile(r"https://civitai\.com/models/([0-9]+)")
LONGEST = 16 << 20
"""Bytes of an answer of its API."""


def is_page(url: str) -> bool:
    """Whether a URL is a model's page, which names no version."""
    return _PAGE.fullmatch(url) is not None


def newest(url: str, label: str, web: Web) -> tuple[str, str | None]:
    """The download URL of a model's newest version, and its sha256 if Civitai states it.

    https://github.com/civitai/civitai/wiki/REST-API-Reference. Raises Failure.
    """
    match = _PAGE.fullmatch(url)
    model = web.ask(f"https://civitai.com/api/v1/models/{match[1] if match else ''}", label, _json)
    try:
        version = model["modelVersions"][0]
        address = f"https://civitai.com/api/download/models/{int(version['id'])}"
    except (LookupError, TypeError, ValueError, OverflowError):
        raise Failure(f"{label}: Civitai names no version: copy the link of a version") from None
    try:
        first = next(file for file in version["files"] if file.get("primary"))
        sha256 = str(first["hashes"]["SHA256"]).lower()
    except (StopIteration, LookupError, TypeError, ValueError, AttributeError):
        sha256 = ""
    return address, sha256 if re.fullmatch(r"[0-9a-f]{64}", sha256) else None


def _json(answer: Answer) -> Any:
    body = bytearray()
    for chunk in answer.chunks():
        body += chunk
        if len(body) > LONGEST:
            return None
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None
