"""Real HTTP servers on the loopback interface that want a user and a password."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import subprocess
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit


class Guarded(BaseHTTPRequestHandler):
    """Answers those alone who send one of `allowed`, each "user:password"; nobody, if empty."""

    allowed: ClassVar[set[str]] = set()
    #: What was sent with each request, "user:password", empty for none.
    seen: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        scheme, _, sent = self.headers.get("Authorization", "").partition(" ")
        credentials = base64.b64decode(sent).decode() if scheme == "Basic" else ""
        self.seen.append(credentials)
        if credentials in self.allowed:
            self.serve()
        else:
            self.answer(401, b"", **{"WWW-Authenticate": 'Basic realm="tests"'})

    do_POST = do_HEAD = do_GET  # noqa: N815  the names that http.server looks for

    def serve(self) -> None:
        raise NotImplementedError

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class GitHandler(Guarded):
    """The repositories below `folder`, by git's own CGI program."""

    folder: ClassVar[Path]

    def serve(self) -> None:
        asked = urlsplit(self.path)
        length = self.headers.get("Content-Length", "0")
        ended = subprocess.run(
            ["git", "http-backend"],
            input=self.rfile.read(int(length)),
            env={
                "PATH": os.environ["PATH"],
                "GIT_PROJECT_ROOT": str(self.folder),
                "GIT_HTTP_EXPORT_ALL": "1",
                "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
                "GIT_CONFIG_COUNT": "1",
                "GIT_CONFIG_KEY_0": "safe.directory",
                "GIT_CONFIG_VALUE_0": "*",
                "REQUEST_METHOD": self.command,
                "PATH_INFO": asked.path,
                "QUERY_STRING": asked.query,
                "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                "CONTENT_LENGTH": length,
                "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            },
            stdout=subprocess.PIPE,
        )
        head, _, body = ended.stdout.partition(b"\r\n\r\n")
        headers = dict(BytesParser().parsebytes(head).items())
        self.answer(int(headers.pop("Status", "200").split()[0]), body, **headers)


class IndexHandler(Guarded):
    """A simple index at /simple and a page of links at /page, with one wheel."""

    wheel: ClassVar[tuple[str, bytes]]

    def serve(self) -> None:
        name, content = self.wheel
        project = name.split("-")[0]
        path = urlsplit(self.path).path
        if path in ("/page", f"/simple/{project}/"):
            sha256 = hashlib.sha256(content).hexdigest()
            link = f'<html><a href="/files/{name}#sha256={sha256}">{name}</a></html>'
            self.answer(200, link.encode(), **{"Content-Type": "text/html"})
        elif path == f"/files/{name}":
            self.answer(200, content)
        else:
            self.answer(404, b"")


@contextmanager
def git_server(folder: Path, *allowed: str) -> Iterator[tuple[str, list[str]]]:
    """The URL at which the repositories below `folder` are, and what requests came with."""
    with _serve(type("Git", (GitHandler,), _state(allowed) | {"folder": folder})) as served:
        yield served


@contextmanager
def index_server(project: str, *allowed: str) -> Iterator[tuple[str, list[str]]]:
    """The URL of a package index with version 1.0 of `project`, and what requests came with."""
    wheel = make_wheel(project)
    with _serve(type("Index", (IndexHandler,), _state(allowed) | {"wheel": wheel})) as served:
        yield served


def make_wheel(project: str) -> tuple[str, bytes]:
    """Name and content of a wheel with one module, named like the project."""
    about = f"{project}-1.0.dist-info"
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as wheel:
        wheel.writestr(f"{project}.py", "")
        wheel.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {project}\nVersion: 1.0")
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{about}/RECORD", "")
    return f"{project}-1.0-py3-none-any.whl", content.getvalue()


def _state(allowed: tuple[str, ...]) -> dict[str, object]:
    return {"allowed": set(allowed), "seen": []}


@contextmanager
def _serve(handler: type[Guarded]) -> Iterator[tuple[str, list[str]]]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", handler.seen
        finally:
            server.shutdown()
            thread.join()
