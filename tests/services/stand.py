"""A server that answers what it is told to, as the health server would, and shows the page."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from comfy_machine.host.comfyui.condition import HEALTHY
from comfy_machine.services.health.model import answers
from comfy_machine.services.health.web import page

PATHS = {
    "/health/comfyui": "overview",
    "/health/comfyui/installation": "installation",
    "/health/comfyui/instances": "instances",
    "/health/comfyui/models": "models",
}


class Stand:
    """It is told by `say`, also while a page is open; `stop` hangs up on everybody."""

    def __init__(self) -> None:
        self.page = page.load()
        self.topics: dict[str, answers.Verdict] = {}
        self.pictures: dict[str, bytes] = {}
        """Path → a PNG."""
        self.has_events = True
        self.holds_up = False
        """Events are asked for and none arrives, as behind a proxy that collects them."""
        self.ahead = 0.0
        """Seconds that its clock is ahead of the browser's."""
        self.asked: list[str] = []
        self.told = threading.Condition()
        self.port = 0
        self.server: ThreadingHTTPServer | None = None
        self._thread = threading.Thread()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def say(self, **topics: answers.Verdict) -> None:
        with self.told:
            self.topics = self.topics | topics
            self.told.notify_all()

    def start(self) -> None:
        """On the port that it had before, if it ran before."""
        handler = type("Answers", (_Answers,), {"stand": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), handler)
        self.port = self.server.server_port
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """A stream of events ends with the server that it came from."""
        with self.told:
            server, self.server = self.server, None
            self.told.notify_all()
        if server:
            server.shutdown()
            server.server_close()
            self._thread.join()


class _Answers(BaseHTTPRequestHandler):
    stand: Stand

    def do_GET(self) -> None:
        stand = self.stand
        stand.asked.append(self.path)
        topic = stand.topics.get(PATHS.get(self.path, ""))
        if self.path == "/":
            self._head(200, "text/html; charset=utf-8")
            self.wfile.write(stand.page.body)
        elif self.path in stand.pictures:
            self._head(200, "image/png")
            self.wfile.write(stand.pictures[self.path])
        elif topic is not None:
            self._head(200 if topic.status in HEALTHY else 503, "application/json")
            self.wfile.write(topic.model_dump_json().encode())
        elif self.path == "/health/comfyui/events" and stand.has_events:
            self._head(200, "text/event-stream")
            self._follow()
        else:
            self._head(404, "application/json")
            self.wfile.write(json.dumps({"status": "error", "reason": "not here"}).encode())

    def _head(self, code: int, kind: str) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Security-Policy", self.stand.page.policy)
        self.end_headers()

    def _follow(self) -> None:
        stand, sent = self.stand, dict[str, answers.Verdict]()
        while stand.server is self.server:
            with stand.told:
                if stand.server is self.server and stand.topics == sent:
                    stand.told.wait()
                topics = stand.topics
            for topic, body in topics.items():
                if sent.get(topic) != body and not stand.holds_up:
                    try:
                        data = f"event: {topic}\ndata: {body.model_dump_json()}\n\n"
                        self.wfile.write(data.encode())
                    except OSError:
                        return
            sent = topics

    def date_time_string(self, timestamp: float | None = None) -> str:
        return super().date_time_string((timestamp or time.time()) + self.stand.ahead)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def stand() -> Iterator[Stand]:
    one = Stand()
    one.start()
    try:
        yield one
    finally:
        one.stop()
