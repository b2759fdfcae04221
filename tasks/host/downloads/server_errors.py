"""What goes wrong with servers: what may pass is asked again for a while, the rest is not.

Failure
└── Denied       401, 403, 404 and the like: asking again gives the same
Passing          a reset, a timeout, 408, 425, 429, 5xx: ask again, after `wait` seconds if it says
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
    """The server will not give it, however often it is asked."""


class Passing(Exception):  # noqa: N818  reads as what it is
    """Something that may pass; `wait` is what the server wants, in seconds."""

    def __init__(self, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait


def retry_after(text: str | None) -> float | None:
    """Seconds that a Retry-After header asks for; RFC 9110 has numbers and dates."""
    text = (text or "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        when = email.utils.parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None
    return max(0.0, when - time.time())


def causes(error: BaseException) -> Iterator[BaseException]:
    """An error and those that it came of; the libraries keep them in several places."""
    left, seen = [error], set[int]()
    while left:
        one = left.pop(0)
        if id(one) not in seen:
            seen.add(id(one))
            yield one
            others = (*one.args, getattr(one, "reason", None), one.__cause__, one.__context__)
            left += [other for other in others if isinstance(other, BaseException)]


def distrust(error: BaseException) -> str | None:
    """Why a server's certificate isn't trusted, if that is what happened."""
    for cause in causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return str(getattr(cause, "verify_message", "")) or "it can't be verified"
    return None


def refused_by_proxy(error: BaseException) -> str | None:
    """What a proxy answers instead of a connection, status first: `403 Forbidden`."""
    texts = (str(cause) for cause in causes(error) if type(cause) is OSError)
    found = (re.search(r"Tunnel connection failed: (\d{3}[ \w]*)", text) for text in texts)
    return next((match[1].strip() for match in found if match), None)


def gist(error: BaseException) -> str:
    """What happened to a connection, in our words: the library's texts name objects and the
    address, which may hold a secret."""
    import requests
    import urllib3

    if answer := refused_by_proxy(error):
        return f"the proxy answers {answer}"
    for kinds, words in (
        # A tunnel that breaks off is an error of the proxy too, to the library.
        ((ConnectionResetError, BrokenPipeError, ConnectionAbortedError, ssl.SSLEOFError,
          ssl.SSLZeroReturnError), "the connection was reset"),
        ((requests.exceptions.ProxyError, urllib3.exceptions.ProxyError),
         "the proxy can't be reached"),
        ((socket.gaierror, urllib3.exceptions.NameResolutionError), "its name can't be resolved"),
        ((ConnectionRefusedError,), "the connection was refused"),
        ((requests.Timeout, urllib3.exceptions.TimeoutError, TimeoutError),
         "nothing came for too long"),
        ((http.client.IncompleteRead, urllib3.exceptions.IncompleteRead),
         "the answer ended too early"),
        ((ssl.SSLError, urllib3.exceptions.SSLError), "its TLS can't be understood"),
    ):  # fmt: skip
        if any(isinstance(cause, kinds) for cause in causes(error)):
            return words
    return f"the connection failed ({type(error).__name__})"
