"""What a NATS server says to a client: whether it answers, and whether it keeps jobs."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

TIMEOUT = 5.0
"""Seconds that a server elsewhere may take for each answer."""
NEARBY = 2.0
"""Seconds that our own may take."""
PORT = 4222
"""Where a URL names none."""
GREETING = 1 << 16
"""Bytes of the first line of a server at most."""


@dataclass(frozen=True)
class Account:
    """How to reach a server: URLs separated by commas, what it asks for, and files in PEM."""

    url: str
    credentials: str | None = field(default=None, repr=False)
    """The path of a credentials file, or a token."""
    tls: Mapping[str, str | None] | None = None
    """ca, cert and key, as far as they are given; None: no TLS, unless the server asks for it."""


def answers(port: int) -> bool:
    """Whether a NATS server greets a client at this port of 127.0.0.1."""
    try:
        with socket.create_connection(("127.0.0.1", port), NEARBY) as connection:
            return connection.recv(5, socket.MSG_WAITALL) == b"INFO "
    except OSError:
        return False


def refusal(account: Account) -> str | None:
    """Why jobs can't be kept there; None: they can."""
    import asyncio

    if account.tls is not None and (plain := _plain(account)):
        return f"{plain} doesn't ask for TLS"
    return asyncio.run(_refusal(account))


def _plain(account: Account) -> str | None:
    """A server of these that would be spoken to without TLS; None: none that answers. nats-py uses
    TLS only where the server asks for it, whatever it is told."""
    for url in account.url.split(","):
        place = urlsplit(url)
        try:
            at = (place.hostname or "", place.port or PORT)
            with (
                socket.create_connection(at, TIMEOUT) as connection,
                connection.makefile("rb") as it,
            ):
                greeting = it.readline(GREETING)
            if not json.loads(greeting.removeprefix(b"INFO ")).get("tls_required"):
                return url
        except (OSError, ValueError, AttributeError):
            continue
    return None


async def _refusal(account: Account) -> str | None:
    import asyncio

    import nats
    from nats.errors import Error, NoServersError
    from nats.js.errors import ServiceUnavailableError

    told: list[Exception] = []

    async def note(error: Exception) -> None:
        told.append(error)

    try:
        client = await nats.connect(
            account.url.split(","), connect_timeout=TIMEOUT, allow_reconnect=False,
            max_reconnect_attempts=1, reconnect_time_wait=0, error_cb=note, **_options(account),
        )  # fmt: skip
        try:
            await client.jetstream(timeout=TIMEOUT).account_info()
        finally:
            await client.close()
    except NoServersError as error:
        return _in_words(told[-1] if told else error)
    except ServiceUnavailableError:
        return "it has no JetStream: start it with --jetstream"
    except (Error, OSError, ValueError, asyncio.TimeoutError) as error:
        return _in_words(error)
    return None


def _options(account: Account) -> dict[str, object]:
    """Raises OSError for a file that can't be read."""
    import ssl

    found: dict[str, object] = {}
    if account.credentials:
        is_file = Path(account.credentials).is_file()
        found["user_credentials" if is_file else "token"] = account.credentials
    if account.tls is not None:
        context = ssl.create_default_context(cafile=account.tls.get("ca"))
        if account.tls.get("cert"):
            context.load_cert_chain(account.tls["cert"] or "", account.tls.get("key"))
        found["tls"] = context
    return found


def _in_words(error: BaseException) -> str:
    """One line; what nats-py says of itself isn't repeated."""
    import asyncio
    import ssl

    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate verify failed: {error.verify_message}"
    # In Python 3.10 it isn't the built-in one.
    if isinstance(error, asyncio.TimeoutError):
        return "no answer came"
    if isinstance(error, OSError) and error.strerror:
        # asyncio has words of its own for what the system says; those of a resolver are below 0.
        says = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        return f"{error.filename}: {says}" if error.filename else says
    text = str(error).strip().removeprefix("nats: ").strip("'")
    return " ".join(text.split()) or type(error).__name__
