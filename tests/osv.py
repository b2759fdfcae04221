"""A service with the API of osv.dev on the loopback interface, after its documentation.

with osv([document, …]) as served:
    machine(registry={"advisories": [served.url]})

It answers by the `affected` of its documents: packages of PyPI and repositories by `versions`, and
commits by `commits` of the server, since only the real one knows their history.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class OsvServer(ThreadingHTTPServer):
    daemon_threads = False

    def __init__(self, documents: Sequence[dict[str, Any]]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.documents = {each["id"]: each for each in documents}
        self.commits: dict[str, list[str]] = {}
        """Commit → ids."""
        self.asked: list[Any] = []
        """The questions."""
        self.page = 1000
        """Ids on one page."""
        self.broken = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def batch(self, queries: list[Any]) -> Any:
        self.asked += queries
        return {"results": [self._one(each) for each in queries]}

    def _one(self, query: Any) -> Any:
        if "commit" in query:
            ids = self.commits.get(query["commit"], [])
        else:
            ids = [
                name
                for name, document in self.documents.items()
                for affected in document["affected"]
                if affected["package"] == query["package"]
                and query["version"] in affected["versions"]
            ]
        start = int(query.get("page_token", 0))
        found: dict[str, Any] = {"vulns": [{"id": name} for name in ids[start:][: self.page]]}
        if len(ids) > start + self.page:
            found["next_page_token"] = str(start + self.page)
        return found if ids else {}


class _Handler(BaseHTTPRequestHandler):
    server: OsvServer

    def do_GET(self) -> None:
        document = self.server.documents.get(self.path.removeprefix("/v1/vulns/"))
        self._answer(200 if document else 404, document or {"code": 5, "message": "not found"})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        fine = self.path == "/v1/querybatch" and not self.server.broken
        self._answer(200, self.server.batch(asked["queries"])) if fine else self._answer(400, {})

    def _answer(self, status: int, content: Any) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def osv(documents: Sequence[dict[str, Any]] = ()) -> Iterator[OsvServer]:
    with OsvServer(documents) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def advisory(name: str, affected: Sequence[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """A document in OSV's format."""
    return {
        "schema_version": "1.7.0",
        "id": name,
        "modified": "2026-08-01T00:00:00Z",
        "summary": f"What {name} says",
        "affected": [*affected],
        **more,
    }
