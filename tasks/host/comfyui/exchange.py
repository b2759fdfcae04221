"""One request and its whole answer over HTTP, with limits of size and of total time.

Not through requests: its import takes longer than the rest of `doit status`, its time-out restarts
with every byte, and it unpacks what is compressed.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from email.message import Message

LONGEST = 16 << 20
"""Bytes of an answer; with 2,000 nodes and as many models `/object_info` has about ten million."""
MOST_VALUES = 1_000_000
"""Values in a JSON answer, roughly: one takes 60 bytes of memory, and as few as three as text."""


@dataclass(frozen=True)
class Answer:
    """An answer that was read to its end."""

    status: int
    reason: str
    headers: Message
    content: bytes

    def json(self) -> Any:
        """Raises ValueError, RecursionError."""
        import json

        if sum(map(self.content.count, (b",", b"[", b"{"))) > MOST_VALUES:
            raise ValueError(f"its answer has more than {MOST_VALUES} values")
        return json.loads(self.content)


def request(
    base: str,
    path: str,
    timeout: float,
    longest: int = LONGEST,
    *,
    body: Any = None,
    headers: Mapping[str, str | bytes] | None = None,
) -> Answer:
    """A GET, or with `body` a POST of it as JSON; answered completely within `timeout` seconds.

    Raises OSError (TimeoutError after that time), http.client.HTTPException, and ValueError for
    an answer of more than `longest` bytes.
    """
    import http.client
    import json

    scheme, _, address = base.partition("://")
    connection = http.client.HTTPConnection(address)
    try:
        connection.sock = _connect(connection.host, connection.port, timeout)
        if scheme == "https":
            connection.sock = _wrap_tls(connection.sock)
        if body is None:
            connection.request("GET", path, headers=dict(headers or {}))
        else:
            kind = {"Content-Type": "application/json", **(headers or {})}
            connection.request("POST", path, json.dumps(body).encode(), kind)
        answer = connection.getresponse()
        content = answer.read(longest + 1)
        if len(content) > longest:
            raise ValueError(f"its answer is longer than {longest} bytes")
        return Answer(answer.status, answer.reason, answer.headers, content)
    finally:
        connection.close()


class _DeadlineSocket(socket.socket):
    """Reads until a deadline: a socket's own time-out restarts with every byte."""

    deadline = float("inf")

    def recv_into(self, *arguments: Any, **options: Any) -> int:
        self.settimeout(_seconds_until(self.deadline))
        return super().recv_into(*arguments, **options)


def _seconds_until(deadline: float) -> float:
    """Raises TimeoutError after the deadline."""
    if (left := deadline - time.monotonic()) <= 0:
        raise TimeoutError
    return left


def _connect(host: str, port: int, timeout: float) -> _DeadlineSocket:
    deadline = time.monotonic() + timeout
    connected = socket.create_connection((host, port), timeout)
    result = _DeadlineSocket(fileno=connected.detach())
    result.deadline = deadline
    result.settimeout(timeout)
    return result


def _wrap_tls(plain: _DeadlineSocket) -> socket.socket:
    """TLS over this socket; the certificate isn't checked. Raises ValueError without TLS.

    The kernel identifies our processes on this machine, as with http. The certificate is for other
    clients: it names another host, and may be renewed or expire while jobs run. A restart for that
    would lose them.
    """
    import ssl

    deadline = plain.deadline

    class DeadlineSSLSocket(ssl.SSLSocket):
        def recv_into(self, *arguments: Any, **options: Any) -> int:
            self.settimeout(_seconds_until(deadline))
            return super().recv_into(*arguments, **options)

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.sslsocket_class = DeadlineSSLSocket
    try:
        return context.wrap_socket(plain)
    except ssl.SSLError as error:
        raise ValueError(f"it doesn't speak TLS ({error.reason or error})") from None
