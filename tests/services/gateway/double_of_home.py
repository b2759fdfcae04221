"""A double of the instance whose page the gateway shows: it says what it was asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PAGE = b"<html>the page</html>"
FILE = b"0123456789" * 1000


class Home(ThreadingHTTPServer):
    """`asked` has what came: method, path, headers, body; `answers` are paths and their JSON,
    `kind` the type as which it is sent."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []
        self.answers: dict[str, Any] = {}
        self.kind = "application/json"
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Home

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.asked.append((self.command, self.path, headers, body))
        path = self.path.partition("?")[0]
        if path in self.server.answers:
            self._say(200, json.dumps(self.server.answers[path]).encode(), self.server.kind)
        elif path == "/":
            self._say(200, PAGE, "text/html", Etag='"1"', Set_Cookie="a=b", Keep_Alive="1")
        elif path == "/big.js" and "range" in headers:
            self._say(206, FILE[2:5], "text/javascript", Content_Range="bytes 2-4/10000")
        elif path == "/moved":
            self._say(302, b"", "text/plain", Location="//elsewhere")
        elif path == "/cut":
            self.send_response(200)
            self.send_header("Content-Length", "100")
            self.end_headers()
            self.wfile.write(b"half")
        elif path == "/large":
            self._say(200, FILE * 5000, "text/javascript")
        elif path == "/big.js":
            self._say(200, FILE, "text/javascript")
        elif body:
            self._say(200, body, "application/json")
        else:
            self._say(404, b"none", "text/plain")

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_DELETE(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def _say(self, code: int, body: bytes, kind: str, **headers: str) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            with suppress(OSError):
                self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def home() -> Iterator[Home]:
    server = Home()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
