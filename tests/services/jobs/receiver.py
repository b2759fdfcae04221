"""A receiver of webhooks: it keeps what comes, and answers as it is told to."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Heard:
    """One request."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def said(self) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(self.body)
        return told


@dataclass
class Receiver:
    url: str
    codes: list[int] = field(default_factory=list)
    """Of the next answers; 200 when there are none left."""
    heard: list[Heard] = field(default_factory=list)
    answers: threading.Event = field(default_factory=threading.Event)
    """Until it is set, nobody gets an answer."""
    headers: dict[str, str] = field(default_factory=dict)
    """Of all answers."""


@contextmanager
def receiver() -> Iterator[Receiver]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            it.heard.append(Heard(self.path, headers, body))
            it.answers.wait()
            self.send_response(it.codes.pop(0) if it.codes else 200)
            for name, value in it.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            """The client gave up."""

    server = Server(("127.0.0.1", 0), Handler)
    it = Receiver(f"http://127.0.0.1:{server.server_port}")
    it.answers.set()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield it
    finally:
        it.answers.set()
        server.shutdown()
        server.server_close()
