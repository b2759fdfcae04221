"""The connection to NATS, which outlives restarts of the server."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from nats.aio.client import Client
from nats.errors import Error

from .job_settings import Settings, Tls
from .nats_transport import NatsTransport

CREDENTIALS = "JOBS_CREDENTIALS"
"""The variable with the path of a NATS credentials file, or with a token."""
RETRY = 0.25
"""Seconds between two attempts to reach the server again."""
CLOSES = 2.0
"""Seconds that closing may take."""
ANSWER = 5.0
"""Seconds that the store may take to answer."""
PING, UNANSWERED = 2, 2
"""Seconds between two pings, and how many may be without an answer: with the next one the server is
taken for gone, before a worker ends its job and long before its lease ends."""


async def connect(
    settings: Settings, name: str, reconnected: Callable[[], Awaitable[None]] | None = None
) -> Client:
    """Connect, however long it takes; each connection is by TLS if the settings have certificates
    or the server's URL says so. Raises OSError for a token or certificate that can't be read.
    `name` is what the server's monitoring shows."""
    options: dict[str, Any] = {"reconnect_time_wait": RETRY}
    if settings.token_file:
        options["token"] = Path(settings.token_file).read_text(encoding="utf-8").strip()
    elif credentials := os.environ.get(CREDENTIALS):
        is_file = Path(credentials).is_file()
        options["user_credentials" if is_file else "token"] = credentials
    if settings.tls:
        options["tls"] = _context(settings.tls)
    client = Client()
    client._transport = NatsTransport(PING * (UNANSWERED + 1), tls=settings.tls is not None)
    await client.connect(
        settings.url.split(","),
        name=name,
        allow_reconnect=True,
        max_reconnect_attempts=-1,
        ping_interval=PING,
        max_outstanding_pings=UNANSWERED,
        reconnected_cb=reconnected,
        error_cb=_ignore,
        **options,
    )
    return client


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
