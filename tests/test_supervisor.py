"""PM2 from npm: from its cache where that will do, anew where it won't."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from comfy_machine.host.pm2 import pm2
from comfy_machine.host.system import files, private_folder
from tests.rig import SIMULATOR, Rig, free_ports


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """A machine with an npm cache of its own, and a registry that is there only when served."""
    registry = f"http://127.0.0.1:{free_ports(1)}"
    settings = {"registry": registry, "cache": str(tmp_path / "npm"), "fetch_retries": "0"}
    env = {f"npm_config_{name}": value for name, value in settings.items()}
    yield Rig(tmp_path, {"workspace": "ws", "comfyui": {"path": str(SIMULATOR)}}, env)
    for name in ("ws", "second"):
        files.remove(private_folder.folder(tmp_path / name))


@contextmanager
def registry(rig: Rig, *versions: str) -> Iterator[list[str]]:
    """An npm registry that knows PM2, or something of that name, in these versions.

    Yields the list of the paths that it is asked for.
    """
    asked: list[str] = []
    url = rig.env["npm_config_registry"]
    packages = {f"/{version}.tgz": package(version) for version in versions}
    index = {version: entry(url, version, packages[f"/{version}.tgz"]) for version in versions}
    about = {"name": "pm2", "dist-tags": {"latest": versions[-1]}, "versions": index}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            answers = {"/pm2": json.dumps(about).encode(), **packages}
            self.send_response(200 if self.path in answers else 404)
            body = answers.get(self.path, b"")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    port = int(url.rpartition(":")[2])
    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield asked
        finally:
            server.shutdown()
            thread.join()


def entry(url: str, version: str, content: bytes) -> dict[str, Any]:
    checksum = base64.b64encode(hashlib.sha512(content).digest()).decode()
    dist = {"tarball": f"{url}/{version}.tgz", "integrity": f"sha512-{checksum}"}
    return {"name": "pm2", "version": version, "dist": dist}


def package(version: str) -> bytes:
    about = json.dumps({"name": "pm2", "version": version})
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name, text in (("package.json", about), ("bin/pm2", version)):
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    return content.getvalue()


def test_a_second_workspace_asks_no_registry(rig: Rig) -> None:
    with registry(rig, pm2.VERSION):
        rig.doit("supervisor")
    rig.spec["workspace"] = "second"
    with registry(rig, pm2.VERSION) as asked:
        rig.doit("supervisor")
    assert asked == []
    assert (rig.folder / "second" / ".machine" / "supervisor" / f"pm2-{pm2.VERSION}").is_dir()


def test_a_version_that_came_after_the_cache_was_filled_is_fetched(rig: Rig) -> None:
    npm = pm2.node().parent.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    with registry(rig, "0.0.1"):
        subprocess.run(
            [pm2.node(), npm, "install", "--prefix", rig.folder, "pm2@0.0.1"],
            env=rig.environ(),
            check=True,
        )
    with registry(rig, "0.0.1", pm2.VERSION):
        rig.doit("supervisor")
    assert pm2.script(rig.layout).read_text() == pm2.VERSION


def test_a_registry_that_is_not_there_is_named_with_what_to_do(rig: Rig) -> None:
    run = rig.doit("supervisor", code=1)
    assert f"PM2 {pm2.VERSION} can't be installed from npm (request to http://127" in run.output
    assert "reason: connect ECONNREFUSED" in run.output
    assert "npm_config_registry" in run.output
    assert not pm2.folder(rig.layout).exists()
