"""A small internet on the loopback interface: an HTTP proxy that is every host there is.

It ends TLS itself, with a certificate for whatever host is asked for, so that a client believes
that it speaks with https://huggingface.co. No name is looked up, and nothing leaves the machine.
"""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import trustme


@dataclass(frozen=True)
class Asked:
    """A request that came to a host."""

    url: str
    headers: dict[str, str]
    """Lower case."""

    @property
    def token(self) -> str | None:
        return self.headers.get("authorization")


@dataclass(frozen=True)
class Reply:
    """What a host answers."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    reason: str | None = None
    breaks: bool = False
    """The connection is reset instead."""
    short: int = 0
    """Bytes of the body that never come."""


def moved(to: str, **headers: str) -> Reply:
    return Reply(302, headers={"Location": to, **headers})


@dataclass
class Internet:
    """The hosts, and what they were asked."""

    authority: trustme.CA
    replies: dict[str, list[Reply]] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    connects: list[str] = field(default_factory=list)
    """`host:port` of each connection through the proxy."""
    refuses: str | None = None
    """What the proxy itself answers instead of a connection: `403 Forbidden`."""
    strangers: set[str] = field(default_factory=set)
    """Hosts whose certificates nobody trusts."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    contexts: dict[str, ssl.SSLContext] = field(default_factory=dict)

    def at(self, url: str, *replies: Reply) -> str:
        """Give an address its answers, one after the other; the last one stays."""
        self.replies[url] = list(replies)
        return url

    @property
    def tokens(self) -> list[tuple[str, str | None]]:
        """The address and the Authorization of every request."""
        return [(asked.url, asked.token) for asked in self.asked]

    def answer(self, asked: Asked) -> Reply:
        with self.lock:
            self.asked.append(asked)
            replies = self.replies.get(asked.url) or [Reply(404)]
            reply = replies.pop(0) if len(replies) > 1 else replies[0]
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", asked.headers.get("range", ""))
        if reply.status != 206 or not wanted:
            return reply
        start, end, total = int(wanted[1]), int(wanted[2]) + 1, len(reply.body)
        part = reply.body[start:end]
        span = {"Content-Range": f"bytes {start}-{start + len(part) - 1}/{total}"}
        return Reply(206, part, {**reply.headers, **span})

    def context(self, host: str) -> ssl.SSLContext:
        with self.lock:
            if host not in self.contexts:
                signer = trustme.CA() if host in self.strangers else self.authority
                self.contexts[host] = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                signer.issue_cert(host).configure_cert(self.contexts[host])
            return self.contexts[host]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 5
    internet: Internet
    origin = ""

    def do_CONNECT(self) -> None:
        host, _, port = self.path.rpartition(":")
        with self.internet.lock:
            self.internet.connects.append(self.path)
        if self.internet.refuses:
            status, _, reason = self.internet.refuses.partition(" ")
            self.send_response(int(status), reason)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.end_headers()
        self.origin = f"https://{host}" if port == "443" else f"https://{self.path}"
        try:
            secured = self.internet.context(host).wrap_socket(self.connection, server_side=True)
        except OSError:
            self.close_connection = True
            return
        self.connection = self.request = secured
        self.rfile.close()
        self.rfile = secured.makefile("rb")
        self.wfile = secured.makefile("wb", buffering=0)  # type: ignore[assignment]
        self.server.opened.append(secured)  # type: ignore[attr-defined]
        self.close_connection = False

    def do_GET(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        reply = self.internet.answer(Asked(self.origin + self.path, headers))
        if reply.breaks:
            # With this a closed socket says RST.
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.close_connection = True
            return
        self.send_response(reply.status, reply.reason)
        for name, value in {"Content-Length": str(len(reply.body)), **reply.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(reply.body[: len(reply.body) - reply.short])
        self.close_connection = self.close_connection or reply.short > 0

    def handle(self) -> None:
        self.server.opened.append(self.connection)  # type: ignore[attr-defined]
        with contextlib.suppress(OSError):
            super().handle()

    def finish(self) -> None:
        with contextlib.suppress(OSError):
            super().finish()
        self.connection.close()

    def log_message(self, *_: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = False

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.opened: list[socket.socket] = []

    def close_all(self) -> None:
        """End the connections that clients keep open, or their threads would wait for more."""
        for connection in self.opened:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def internet(folder: Path, patch: pytest.MonkeyPatch) -> Iterator[Internet]:
    """Serve one; the environment of this process says where it is and whom it is certified by."""
    net = Internet(trustme.CA())
    net.authority.cert_pem.write_to_path(str(folder / "authority.pem"))
    for name in ("no_proxy", "NO_PROXY", "all_proxy", "ALL_PROXY", "CURL_CA_BUNDLE"):
        patch.delenv(name, raising=False)
    patch.setenv("REQUESTS_CA_BUNDLE", str(folder / "authority.pem"))
    patch.setenv("NETRC", str(folder / "netrc"))
    with _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"internet": net})) as server:
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
            patch.setenv(name, f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield net
        finally:
            server.shutdown()
            thread.join()
            server.close_all()
