"""What goes wrong with servers: what may pass is tried again for a while, the rest is not.

Failure
└── Denied   401, 403, 404 and the like: a retry gives the same
Transient    a reset, a time-out, 408, 425, 429, 5xx: retry, after `wait` seconds if given
"""

from __future__ import annotations

import email.utils
import http.client
import re
import socket
import ssl
import time
from collections.abc import Iterator

from ..system.failure import Failure


class Denied(Failure):
    """The server refuses the request permanently."""


class Transient(Exception):  # noqa: N818  reads as what it is
    """A temporary failure; `wait`: the seconds that the server asks to wait (None: not stated)."""

    def __init__(self, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait


def retry_after(text: str | None) -> float | None:
    """The seconds in a Retry-After header; RFC 9110 allows numbers and dates."""
    text = (text or "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        when = email.utils.parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None
    return max(0.0, when - time.time())


def causes(error: BaseException) -> Iterator[BaseException]:
    """An error and its causes, which the libraries keep in several attributes."""
    pending, seen = [error], set[int]()
    while pending:
        current = pending.pop(0)
        if id(current) not in seen:
            seen.add(id(current))
            yield current
            reason = getattr(current, "reason", None)
            others = (*current.args, reason, current.__cause__, current.__context__)
            pending += [other for other in others if isinstance(other, BaseException)]


def certificate_problem(error: BaseException) -> str | None:
    """Why a server's certificate isn't trusted; None: the error is another one."""
    for cause in causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return str(getattr(cause, "verify_message", "")) or "it can't be verified"
    return None


def refused_by_proxy(error: BaseException) -> str | None:
    """A proxy's answer to CONNECT, with the status first: `403 Forbidden`."""
    texts = (str(cause) for cause in causes(error) if type(cause) is OSError)
    found = (re.search(r"Tunnel connection failed: (\d{3}[ \w]*)", text) for text in texts)
    return next((match[1].strip() for match in found if match), None)


def gist(error: BaseException) -> str:
    """What happened to a connection, in our words: the libraries' messages contain the URL, which
    may have a secret."""
    import requests
    import urllib3

    if answer := refused_by_proxy(error):
        return f"the proxy answers {answer}"
    for kinds, words in (
        # First, since urllib3 wraps a broken tunnel in a ProxyError.
        ((ConnectionResetError, BrokenPipeError, ConnectionAbortedError, ssl.SSLEOFError,
          ssl.SSLZeroReturnError), "the connection was reset"),
        ((requests.exceptions.ProxyError, urllib3.exceptions.ProxyError),
         "the proxy can't be reached"),
        ((socket.gaierror, urllib3.exceptions.NameResolutionError), "its name can't be resolved"),
        ((ConnectionRefusedError,), "the connection was refused"),
        ((requests.Timeout, urllib3.exceptions.TimeoutError, TimeoutError),
         "no data came for too long"),
        ((http.client.IncompleteRead, urllib3.exceptions.IncompleteRead),
         "the answer ended too early"),
        ((ssl.SSLError, urllib3.exceptions.SSLError), "the TLS handshake failed"),
    ):  # fmt: skip
        if any(isinstance(cause, kinds) for cause in causes(error)):
            return words
    return f"the connection failed ({type(error).__name__})"
