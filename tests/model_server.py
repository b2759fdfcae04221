"""A server of models on the loopback interface: a good one, or as bad as a test wants it.

with model_server() as server:
    server.content["/a.safetensors"] = b"…"             # or the Path of a file
    server.ways["/a.safetensors"] = Ways(break_after=1000, breaks=1)
    fetch(f"{server.url}/a.safetensors")
    server.counts["/a.safetensors"].requests

It speaks HTTP/1.1 with keep-alive, Range, If-Range, ETag and Last-Modified; the fields of `Ways`
compose. All of it may be changed while it runs.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import os
import random
import re
import select
import socket
import struct
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

Content = bytes | Path
DATE = 1_700_000_000.0


@dataclass
class Asked:
    """One request."""

    path: str
    number: int
    """Of this path, from 1."""
    range: str | None
    if_range: str | None
    headers: Mapping[str, str] = field(repr=False)


@dataclass
class Ways:
    """How a path is served; what isn't set is as a good server does it."""

    break_after: int | None = None
    """Bytes of a body after which it breaks off."""
    how: Literal["reset", "stall", "close"] = "reset"
    breaks: float = math.inf
    """How many answers break off, counted down; later ones are whole."""
    chance: float = 1.0
    """How likely an answer breaks off; below 1 it does so anywhere before `break_after`."""
    framing: Literal["length", "close", "chunked"] = "length"
    """What ends a body: Content-Length, the end of the connection, or the last chunk."""
    lie: int = 0
    """Bytes added to the true Content-Length."""
    ranges: Literal["yes", "no", "once", "wrong", "short", "refused", "nonsense"] = "yes"
    """no: 200 with all of it; once: no after the first request; wrong: 206 with other bytes than
    asked for; short: half of them; refused: 416 for all that don't begin at 0; nonsense: 206 with
    a Content-Range that ends before it begins."""
    validators: Literal["strong", "weak", "date", "none"] = "strong"
    later: Content | None = None
    """What takes the content's place, …"""
    later_from: int = 2
    """… from this request on, …"""
    unnoticed: bool = False
    """… under the ETag and the date of the first."""
    kind: str = "application/octet-stream"
    gzip: bool = False
    """Encoded, though nobody asked for it."""
    busy_every: int = 0
    """With 2 every second request is answered 503, the first one too."""
    retry_after: str | None = None
    redirect: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    piece: int = 256 << 10
    """Bytes that are sent at once."""
    pause: float = 0.0
    """Seconds after each piece."""
    before: Callable[[Asked], object] | None = None
    """Called in the thread of the request before it is answered."""


@dataclass
class Count:
    """What a path was asked for."""

    requests: int = 0
    bytes: int = 0
    """Of bodies, sent."""
    now: int = 0
    peak: int = 0
    """Most requests that were answered at the same time."""
    asked: list[Asked] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)

    @property
    def ranges(self) -> list[str | None]:
        return [each.range for each in self.asked]


class ModelServer(ThreadingHTTPServer):
    """The server; threads end with it."""

    daemon_threads = False
    request_queue_size = 256

    def __init__(self) -> None:
        self.content: dict[str, Content] = {}
        self.ways: dict[str, Ways] = defaultdict(Ways)
        self.counts: dict[str, Count] = defaultdict(Count)
        self.lock = threading.Lock()
        self.closing = threading.Event()
        self.random = random.Random(0)
        self._connections: set[socket.socket] = set()
        self._peak = 0
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def requests(self) -> int:
        """Of all paths."""
        with self.lock:
            return sum(count.requests for count in self.counts.values())

    @property
    def bytes(self) -> int:
        """Of all bodies."""
        with self.lock:
            return sum(count.bytes for count in self.counts.values())

    @property
    def peak(self) -> int:
        """Most requests at the same time, of all paths."""
        return self._peak

    def forget(self) -> None:
        """Count anew, once the answers that are under way have ended."""
        until(lambda: not any(count.now for count in self.counts.values()))
        with self.lock:
            self.counts.clear()

    def begin(self, asked_path: str, headers: Mapping[str, str]) -> tuple[Asked, Ways]:
        with self.lock:
            count = self.counts[asked_path]
            count.requests += 1
            count.now += 1
            count.peak = max(count.peak, count.now)
            self._peak = max(self._peak, sum(each.now for each in self.counts.values()))
            asked = Asked(
                asked_path,
                count.requests,
                headers.get("Range"),
                headers.get("If-Range"),
                dict(headers),
            )
            count.asked.append(asked)
            return asked, self.ways[asked_path]

    def breaks(self, ways: Ways) -> int | None:
        """After how many bytes this answer breaks off."""
        with self.lock:
            if ways.break_after is None or ways.breaks < 1:
                return None
            if self.random.random() >= ways.chance:
                return None
            ways.breaks -= 1
            return (
                ways.break_after if ways.chance == 1 else self.random.randint(0, ways.break_after)
            )

    def get_request(self) -> tuple[socket.socket, Any]:
        request, address = super().get_request()
        with self.lock:
            self._connections.add(request)
        return request, address

    def shutdown_request(self, request: Any) -> None:
        with self.lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def close_all(self) -> None:
        self.closing.set()
        with self.lock:
            for connection in self._connections:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: object, address: object) -> None:
        """Clients that go away are what is tested."""


class _Gone(Exception):  # noqa: N818  the connection, on purpose
    pass


class _Handler(BaseHTTPRequestHandler):
    server: ModelServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        asked, ways = self.server.begin(path, dict(self.headers.items()))
        try:
            if ways.before:
                ways.before(asked)
            self._answer(asked, ways)
        except (_Gone, OSError):
            self.close_connection = True
        finally:
            with self.server.lock:
                self.server.counts[path].now -= 1

    do_HEAD = do_GET  # noqa: N815  the name that http.server looks for

    def _answer(self, asked: Asked, ways: Ways) -> None:
        content = self.server.content.get(asked.path)
        if ways.busy_every and asked.number % ways.busy_every == 1 % ways.busy_every:
            extra = {"Retry-After": ways.retry_after} if ways.retry_after else {}
            return self._head(asked, 503, {"Content-Length": "0", **extra})
        if ways.redirect:
            return self._head(asked, 302, {"Location": ways.redirect, "Content-Length": "0"})
        if content is None:
            return self._head(asked, 404, {"Content-Length": "0"})
        first = content
        if ways.later is not None and asked.number >= ways.later_from:
            content = ways.later
        headers = {"Content-Type": ways.kind, **_validators(
            ways, first if ways.unnoticed else content
        ), **ways.headers}  # fmt: skip
        size = len(content) if isinstance(content, bytes) else content.stat().st_size
        status, start, end = self._span(asked, ways, headers, size)
        if status == 416:
            headers |= {"Content-Range": f"bytes */{size}", "Content-Length": "0"}
            return self._head(asked, status, headers)
        if status == 206:
            last = start - 9 if ways.ranges == "nonsense" and start > 9 else end - 1
            headers["Content-Range"] = f"bytes {start}-{last}/{size}"
        return self._body(asked, ways, status, headers, content, start, end)

    def _span(
        self, asked: Asked, ways: Ways, headers: Mapping[str, str], size: int
    ) -> tuple[int, int, int]:
        """Status, first byte and the one after the last."""
        match = re.fullmatch(r"bytes=(\d*)-(\d*)", asked.range or "")
        ignored = ways.ranges == "no" or (ways.ranges == "once" and asked.number > 1)
        if not match or ignored or not (match[1] or match[2]):
            return 200, 0, size
        # RFC 9110, 13.1.5: a weak one never fits.
        fitting = [headers.get("ETag"), headers.get("Last-Modified")]
        if asked.if_range and (asked.if_range not in fitting or asked.if_range.startswith("W/")):
            return 200, 0, size
        if match[1]:
            start, end = int(match[1]), min(size, int(match[2]) + 1 if match[2] else size)
        else:
            start, end = max(0, size - int(match[2])), size
        if start >= end or (ways.ranges == "refused" and start > 0):
            return 416, 0, 0
        if ways.ranges == "wrong":
            shift = 1 if end < size else -1 if start > 0 else 0
            return 206, start + shift, end + shift
        if ways.ranges == "short":
            end = max(start + 1, (start + end) // 2)
        return 206, start, end

    def _head(self, asked: Asked, status: int, headers: Mapping[str, str]) -> None:
        with self.server.lock:
            self.server.counts[asked.path].statuses.append(status)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _body(
        self,
        asked: Asked,
        ways: Ways,
        status: int,
        headers: dict[str, str],
        content: Content,
        start: int,
        end: int,
    ) -> None:
        if ways.gzip:
            content = gzip.compress(b"".join(_pieces(content, start, end, 1 << 20)))
            start, end = 0, len(content)
            headers["Content-Encoding"] = "gzip"
        if ways.framing == "chunked":
            headers["Transfer-Encoding"] = "chunked"
        elif ways.framing == "length":
            headers["Content-Length"] = str(end - start + ways.lie)
        if ways.framing == "close" or ways.lie:
            headers["Connection"] = "close"
            self.close_connection = True
        self._head(asked, status, headers)
        if self.command == "HEAD":
            return
        stop = self.server.breaks(ways)
        last = end if stop is None else min(end, start + stop)
        for piece in _pieces(content, start, last, ways.piece):
            self._send(asked, piece, chunked=ways.framing == "chunked")
            if ways.pause:
                self._wait(ways.pause)
        if stop is not None and start + stop <= end:
            self._break_off(ways.how)
        if ways.framing == "chunked":
            self.wfile.write(b"0\r\n\r\n")

    def _send(self, asked: Asked, piece: bytes, *, chunked: bool) -> None:
        if chunked:
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        else:
            self.wfile.write(piece)
        with self.server.lock:
            self.server.counts[asked.path].bytes += len(piece)

    def _wait(self, seconds: float) -> None:
        if self.server.closing.wait(seconds):
            raise _Gone

    def _break_off(self, how: str) -> None:
        if how == "stall":
            while not select.select([self.connection], [], [], 0.05)[0]:
                self._wait(0)
        if how == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            with self.server.lock:
                self.server._connections.discard(self.connection)
            os.close(self.connection.detach())
        raise _Gone

    def log_message(self, *_: object) -> None:
        pass


def _pieces(content: Content, start: int, end: int, length: int) -> Iterator[bytes]:
    if isinstance(content, bytes):
        for position in range(start, end, length):
            yield content[position : min(end, position + length)]
        return
    with content.open("rb") as file:
        file.seek(start)
        while start < end and (piece := file.read(min(length, end - start))):
            yield piece
            start += len(piece)


@lru_cache(maxsize=256)
def _tag(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()[:16]


def _validators(ways: Ways, content: Content) -> dict[str, str]:
    if ways.validators == "none":
        return {}
    if isinstance(content, bytes):
        tag = _tag(content)
        date = DATE + int(tag, 16) % 1_000_000
    else:
        status = content.stat()
        tag, date = f"{status.st_mtime_ns:x}-{status.st_size:x}", status.st_mtime
    etag = {"strong": f'"{tag}"', "weak": f'W/"{tag}"'}.get(ways.validators)
    dated = {"Last-Modified": formatdate(date, usegmt=True)}
    return dated | ({"ETag": etag} if etag else {})


@contextmanager
def model_server() -> Iterator[ModelServer]:
    """A running server; when it ends no thread and no connection is left."""
    with ModelServer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
            server.close_all()


def noise(count: int, seed: int = 0) -> bytes:
    """Bytes that are the same each time and look like nothing."""
    return random.Random(seed).randbytes(count)


def safetensors(count: int, seed: int = 0) -> bytes:
    """A file of one tensor, `count` bytes of noise."""
    header = json.dumps({"t": {"dtype": "U8", "shape": [count], "data_offsets": [0, count]}})
    return len(header).to_bytes(8, "little") + header.encode() + noise(count, seed)


def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait for something that happens elsewhere."""
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "it didn't happen"
        time.sleep(0.005)
