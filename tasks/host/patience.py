"""What goes wrong with servers: what may pass is asked again for a while, the rest is not.

Failure
└── Denied       401, 403, 404 and the like: asking again gives the same
Passing          a reset, a timeout, 408, 425, 429, 5xx: ask again, after `wait` seconds if it says
"""

from __future__ import annotations

import email.utils
import time
from dataclasses import dataclass

from tasks.host.failure import Failure


class Denied(Failure):
    """The server will not give it, however often it is asked."""


class Passing(Exception):  # noqa: N818  reads as what it is
    """Something that may pass; `wait` is what the server wants, in seconds."""

    def __init__(self, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait


@dataclass(frozen=True)
class Patience:
    """How long a server is borne with."""

    connect: float = 10.0
    """Seconds until a connection stands."""
    read: float = 30.0
    """Seconds without a byte until it counts as stalled."""
    slowest: float = 1024.0
    """Bytes per second below which it counts as stalled too."""
    attempts: int = 6
    """Tries without progress between them."""
    backoff: float = 1.0
    """Seconds before the second try; doubled each time."""
    longest: float = 120.0
    """Seconds; who wants us to come back later than that is not waited for."""

    def pause(self, attempt: int, passing: Passing, label: str) -> None:
        """Sleep before another try. Raises Failure when there is to be none."""
        wait = passing.wait if passing.wait is not None else self.backoff * 2 ** (attempt - 1)
        if attempt >= self.attempts or wait > self.longest:
            when = f"; it asks to wait {wait:.0f} s" if wait > self.longest else ""
            tries = f" ({attempt} tries)" if attempt > 1 else ""
            raise Failure(f"{label}: {passing}{tries}{when}: run doit again to go on") from passing
        time.sleep(wait)


def retry_after(text: str | None) -> float | None:
    """Seconds that a Retry-After header asks for; RFC 9110 has numbers and dates."""
    if not text:
        return None
    if text.strip().isdigit():
        return float(text)
    try:
        when = email.utils.parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError):
        return None
    return max(0.0, when - time.time())


def gist(error: BaseException) -> str:
    """What happened to a connection, without the objects that the library's texts name."""
    import requests
    import urllib3

    text = f"{error} {error.__cause__ or ''} {error.__context__ or ''}"
    if "NameResolution" in text or "Name or service" in text or "resolve" in text:
        return "its name can't be resolved"
    if isinstance(error, requests.Timeout | urllib3.exceptions.TimeoutError) or "timed out" in text:
        return "nothing came for too long"
    if "IncompleteRead" in text or "InvalidChunk" in text:
        return "the answer ended too early"
    if "refused" in text:
        return "the connection was refused"
    if "reset" in text or "RemoteDisconnected" in text or "without response" in text:
        return "the connection was reset"
    if "ProxyError" in text or "proxy" in text:
        return "the proxy can't be reached"
    return f"the connection failed ({type(error).__name__})"
