"""A registry of custom nodes on the loopback interface, after the registry's OpenAPI document.

with registry() as served:
    served.publish("alpha-pack", "1.0.0", {"__init__.py": "…"})
    served.nodes["alpha-pack"].versions["1.0.0"].status = "NodeVersionStatusBanned"
    machine(custom_nodes=[{"id": "alpha-pack"}], registry={"url": served.url})

All of it may be changed while it runs. `asked` has the path of each request.
"""

from __future__ import annotations

import io
import json
import re
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.forge import NODE

DAY = "2026-08-01T00:00:00Z"


@dataclass
class Version:
    """A version of a node, as the registry keeps it."""

    number: str
    archive: bytes
    status: str = "NodeVersionStatusActive"
    status_reason: str = "Passed automated checks"
    deprecated: bool = False
    url: str | None = None
    """Where it says that the archive is, if not here."""


@dataclass
class Node:
    """A node of the registry."""

    id: str
    repository: str = ""
    status: str = "NodeStatusActive"
    status_detail: str = ""
    versions: dict[str, Version] = field(default_factory=dict)


def archive(files: Mapping[str, str | bytes]) -> bytes:
    """A zip archive of these files, as `comfy node publish` makes it."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as made:
        for name, text in files.items():
            made.writestr(name, text)
    return content.getvalue()


class RegistryServer(ThreadingHTTPServer):
    daemon_threads = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.nodes: dict[str, Node] = {}
        self.asked: list[str] = []
        self.broken = False
        """Whether it answers 500 to everything."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def publish(
        self, name: str, number: str, files: Mapping[str, str | bytes] | None = None, **more: Any
    ) -> Version:
        """Add a version; without `files` a custom node with one class that tells its version."""
        kind = f"{name.replace('-', '_').title()}"
        project = f'[project]\nname = "{name}"\nversion = "{number}"\n'
        own = {"__init__.py": NODE.format(name=kind), "pyproject.toml": project}
        node = self.nodes.setdefault(name, Node(name))
        content = archive(own if files is None else files)
        node.versions[number] = Version(number, content, **more)
        return node.versions[number]

    def answer(self, path: str, query: Mapping[str, list[str]]) -> tuple[int, Any]:
        """Status, and bytes or what becomes JSON."""
        parts = [unquote(part) for part in path.strip("/").split("/")]
        if self.broken:
            return 500, {"message": "Internal server error", "error": "it is broken"}
        match parts:
            case ["archives", name, number, "node.zip"]:
                return 200, self.nodes[name].versions[number].archive
            case ["nodes", "search"]:
                return 200, self._search(query)
            case ["nodes", name, *_] if name not in self.nodes:
                return 404, {"message": "Node not found", "error": ""}
            case ["nodes", name]:
                return 200, self._node(self.nodes[name])
            case ["nodes", name, "versions"]:
                wanted = query.get("statuses")
                reasons = query.get("include_status_reason") == ["true"]
                every = self._ordered(self.nodes[name])
                listed = [each for each in every if not wanted or each.status in wanted]
                return 200, [self._version(name, each, reasons) for each in listed]
            case ["nodes", name, "versions", number]:
                found = self.nodes[name].versions.get(number)
                return (200, self._version(name, found, True)) if found else (404, {"message": ""})
        return 404, {"message": "Not found"}

    def _search(self, query: Mapping[str, list[str]]) -> Any:
        words = query.get("search", [""])[0].casefold()
        place = query.get("repository_url_search", [""])[0].casefold()
        found = [
            self._node(each)
            for each in self.nodes.values()
            if words in each.id.casefold() and place in each.repository.casefold()
        ]
        limit = int(query.get("limit", ["10"])[0])
        pages = -(-len(found) // limit)
        return {"nodes": found[:limit], "total": len(found), "page": 1, "totalPages": pages}

    def _ordered(self, node: Node) -> list[Version]:
        """By the letters of their numbers, the last first, as the registry does."""
        return sorted(node.versions.values(), key=lambda each: each.number, reverse=True)

    def _node(self, node: Node) -> dict[str, Any]:
        active = [each for each in self._ordered(node) if each.status == "NodeVersionStatusActive"]
        latest = {"latest_version": self._version(node.id, active[0], False)} if active else {}
        return {
            "id": node.id, "name": node.id, "description": "", "author": "", "license": "{}",
            "icon": "", "category": "", "tags": [], "downloads": 3, "rating": 0,
            "repository": node.repository, "status": node.status,
            "status_detail": node.status_detail, "created_at": DAY, **latest,
        }  # fmt: skip

    def _version(self, name: str, each: Version, reasons: bool) -> dict[str, Any]:
        return {
            "id": f"{name}-{each.number}", "node_id": name, "version": each.number,
            "changelog": "", "createdAt": DAY, "dependencies": [],
            "deprecated": each.deprecated, "status": each.status,
            "status_reason": each.status_reason if reasons else "",
            "downloadUrl": each.url or f"{self.url}/archives/{name}/{each.number}/node.zip",
        }  # fmt: skip


class _Handler(BaseHTTPRequestHandler):
    server: RegistryServer

    def do_GET(self) -> None:
        asked = urlsplit(self.path)
        self.server.asked.append(self.path)
        status, content = self.server.answer(asked.path, parse_qs(asked.query))
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        kind = "application/zip" if isinstance(content, bytes) else "application/json"
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def registry() -> Iterator[RegistryServer]:
    with RegistryServer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def downloads(server: RegistryServer) -> list[str]:
    """The archives that were fetched."""
    return [path for path in server.asked if re.match("/archives/", path)]
