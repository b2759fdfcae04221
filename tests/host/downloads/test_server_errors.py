"""What libraries raise, said in a few words of ours, and how long a server wants to be left."""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from email.utils import formatdate

import pytest
import requests
import urllib3

from comfy_machine.host.downloads.server_errors import (
    certificate_problem,
    gist,
    refused_by_proxy,
    retry_after,
)

POOL = urllib3.HTTPSConnectionPool("huggingface.co")
URL = "/a/resolve/main/reset-refused-proxy-timed%20out?sig=s3cret"


def wrapped(reason: Exception, kind: type[Exception] = requests.ConnectionError) -> Exception:
    """As requests wraps it: the address is in its text."""
    return kind(urllib3.exceptions.MaxRetryError(POOL, URL, reason))


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


TUNNEL = urllib3.exceptions.ProxyError(
    "Unable to connect to proxy", OSError("Tunnel connection failed: 403 Forbidden")
)
UNTRUSTED = ssl.SSLCertVerificationError("certificate verify failed")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (wrapped(ConnectionResetError(104, "reset")), "the connection was reset"),
        (wrapped(http.client.RemoteDisconnected("closed")), "the connection was reset"),
        (wrapped(BrokenPipeError(32, "broken")), "the connection was reset"),
        (wrapped(ssl.SSLEOFError(8, "EOF"), requests.exceptions.SSLError),
         "the connection was reset"),
        (wrapped(urllib3.exceptions.ProxyError("gone", ConnectionResetError())),
         "the connection was reset"),
        (urllib3.exceptions.ProtocolError("Connection broken", ConnectionResetError()),
         "the connection was reset"),
        (wrapped(caused(urllib3.exceptions.NewConnectionError(POOL, "x"),  # type: ignore[arg-type]
                        ConnectionRefusedError(111, "refused"))), "the connection was refused"),
        (wrapped(urllib3.exceptions.NameResolutionError("h", POOL,  # type: ignore[arg-type]
                                                        socket.gaierror(-2, "unknown"))),
         "its name can't be resolved"),
        (wrapped(TUNNEL, requests.exceptions.ProxyError), "the proxy answers 403 Forbidden"),
        (wrapped(urllib3.exceptions.ProxyError("x", socket.gaierror(-2, "unknown")),
                 requests.exceptions.ProxyError), "the proxy can't be reached"),
        (wrapped(urllib3.exceptions.ConnectTimeoutError(), requests.ConnectTimeout),
         "no data came for too long"),
        (requests.ReadTimeout(), "no data came for too long"),
        (urllib3.exceptions.ReadTimeoutError(POOL, URL, "x"), "no data came for too long"),
        (TimeoutError(110, "timed out"), "no data came for too long"),
        (urllib3.exceptions.IncompleteRead(1, 2), "the answer ended too early"),
        (wrapped(ssl.SSLError(1, "WRONG_VERSION_NUMBER"), requests.exceptions.SSLError),
         "the TLS handshake failed"),
        (wrapped(http.client.BadStatusLine("s3cret")), "the connection failed (ConnectionError)"),
        (requests.ConnectionError("s3cret"), "the connection failed (ConnectionError)"),
    ],
)  # fmt: skip
def test_what_happened_is_said_without_the_address(error: Exception, words: str) -> None:
    assert gist(error) == words
    assert certificate_problem(error) is None


def test_a_certificate_is_told_from_a_connection_that_breaks() -> None:
    assert (
        certificate_problem(wrapped(UNTRUSTED, requests.exceptions.SSLError))
        == "it can't be verified"
    )


def test_a_proxy_s_answer_is_read_from_where_the_library_hides_it() -> None:
    assert refused_by_proxy(wrapped(TUNNEL)) == "403 Forbidden"
    assert refused_by_proxy(wrapped(OSError("Tunnel connection failed: none"))) is None


def test_causes_that_go_in_circles_end() -> None:
    first, second = ValueError("a"), ValueError("b")
    first.__context__, second.__context__ = second, first
    assert gist(first) == "the connection failed (ValueError)"


@pytest.mark.parametrize(
    "text",
    [None, "", " ", "soon", "-1", "1.5", "\xb2", "\N{ARABIC-INDIC DIGIT THREE}", "1e3",
     "Mon, 01 Jan 99999 00:00:00 GMT", "Mon, 01 Jan 2024 00:00:00 +999999", "Jan", "0x10"],
)  # fmt: skip
def test_what_is_neither_seconds_nor_a_date_says_nothing(text: str | None) -> None:
    assert retry_after(text) is None


def test_seconds_and_dates_are_read() -> None:
    assert retry_after("120") == 120
    assert retry_after(formatdate(time.time() - 500, usegmt=True)) == 0
    ahead = retry_after(formatdate(time.time() + 500, usegmt=True))
    assert ahead is not None
    assert 400 < ahead <= 500
    assert retry_after("9" * 400) == float("inf")
