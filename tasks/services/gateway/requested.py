"""What a request brings, within bounds of size and time."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, NoReturn

from starlette.requests import Request

from ..jobs.job_store import LARGEST_WORKFLOW
from .refused import Refused

LONGEST_BODY = LARGEST_WORKFLOW + (2 << 20)
"""Bytes of a body that isn't an upload."""
MOST_HELD = 512 << 20
"""Bytes of all such bodies that are on their way."""
PATIENCE = 30.0
"""Seconds that a client may take to send some more of its body."""
SLOWEST = 10_000
"""Bytes a second that a body must come with, beyond this patience."""


@dataclass
class _Bodies:
    """Those that are on their way."""

    held: int = 0


_bodies = _Bodies()


async def pieces(request: Request, longest: int) -> AsyncIterator[bytes]:
    """The body as it comes. Raises Refused when it is too long or too slow."""
    stream, total, began = request.stream(), 0, time.monotonic()
    if int(request.headers.get("content-length", "0")) > longest:
        raise Refused(413, "payload_too_large", f"more than {longest} bytes")
    while True:
        try:
            piece = await asyncio.wait_for(anext(stream), PATIENCE)
        except StopAsyncIteration:
            return
        except asyncio.TimeoutError:
            raise _late() from None
        total += len(piece)
        if time.monotonic() - began > PATIENCE + total / SLOWEST:
            raise _late()
        if total > longest:
            raise Refused(413, "payload_too_large", f"more than {longest} bytes")
        yield piece


async def json_object(request: Request, *, optional: bool = False) -> dict[str, Any]:
    """The body; an `optional` one may be missing. Raises Refused for anything but a JSON object."""
    body = await _body(request)
    if optional and not body:
        return {}
    try:
        found = json.loads(body, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise Refused(400, "invalid_request", "the body is no JSON") from None
    if not isinstance(found, dict):
        raise Refused(400, "invalid_request", "the body is no JSON object")
    return found


async def _body(request: Request) -> bytes:
    """Raises Refused, also when all bodies together are too long."""
    held: list[bytes] = []
    try:
        async for piece in pieces(request, LONGEST_BODY):
            held.append(piece)
            _bodies.held += len(piece)
            if _bodies.held > MOST_HELD:
                raise Refused(
                    429, "queue_full", "too many large requests", headers={"Retry-After": "2"}
                )
        return b"".join(held)
    finally:
        _bodies.held -= sum(map(len, held))


def number(request: Request, name: str, default: float, least: float, most: float) -> float:
    """A number of the query. Raises Refused."""
    text = request.query_params.get(name)
    try:
        value = default if text is None else float(text)
    except ValueError:
        value = float("nan")
    if not least <= value <= most:
        raise Refused(400, "invalid_request", f"'{name}' is no number from {least:g} to {most:g}")
    return value


def _late() -> Refused:
    return Refused(408, "invalid_request", "the body didn't come in time")


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")
