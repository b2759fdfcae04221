"""The connection to NATS, which outlives restarts of the server."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import nats
from nats.aio.client import Client
from nats.errors import Error

from .job_settings import Settings, Tls

CREDENTIALS = "JOBS_CREDENTIALS"
"""The variable with the path of a NATS credentials file, or with a token."""
RETRY = 0.25
"""Seconds between two attempts to reach the server again."""
CLOSES = 2.0
"""Seconds that closing may take."""
ANSWER = 5.0
"""Seconds that the store may take to answer."""


async def connect(
    settings: Settings, name: str, reconnected: Callable[[], Awaitable[None]] | None = None
) -> Client:
    """Connect, however long it takes. Raises OSError for a token or certificate that can't be
    read; `name` is what the server's monitoring shows."""
    options: dict[str, object] = {}
    if settings.token_file:
        options["token"] = Path(settings.token_file).read_text(encoding="utf-8").strip()
    elif credentials := os.environ.get(CREDENTIALS):
        is_file = Path(credentials).is_file()
        options["user_credentials" if is_file else "token"] = credentials
    if settings.tls:
        options["tls"] = _context(settings.tls)
    return await nats.connect(
        settings.url.split(","),
        name=name,
        allow_reconnect=True,
        max_reconnect_attempts=-1,
        reconnect_time_wait=RETRY,
        ping_interval=2,
        max_outstanding_pings=2,
        reconnected_cb=reconnected,
        error_cb=_ignore,
        **options,
    )


async def close(client: Client) -> None:
    """Close the connection, whatever state it is in."""
    with suppress(OSError, Error, asyncio.TimeoutError):
        await asyncio.wait_for(client.close(), CLOSES)


async def _ignore(error: Exception) -> None:
    """nats-py would print each attempt of a reconnection; whoever waits for an answer sees it."""


def _context(tls: Tls) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=tls.ca)
    if tls.cert:
        context.load_cert_chain(tls.cert, tls.key)
    return context
