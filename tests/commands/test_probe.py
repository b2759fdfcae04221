"""doit probe: whom it asks, and what it makes of the answer."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from comfy_machine.host.comfyui import health_client
from comfy_machine.host.system import files, private_folder
from tests.rig import SIMULATOR, Rig, free_ports

SECRET = "hidden-from-all"


@dataclass
class Server:
    """A server that answers like the health server: code and body by path."""

    port: int
    answers: dict[str, tuple[int, dict[str, Any]]] = field(default_factory=dict)
    first: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    """What it answers before, whatever the path."""
    name: str = ""
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    """Paths, and what came as Authorization."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        def version_string(self) -> str:
            return found.name

        def do_GET(self) -> None:
            found.asked.append((self.path, self.headers["Authorization"]))
            answer = found.answers.get(self.path.split("?")[0], (404, {}))
            code, content = found.first.pop(0) if found.first else answer
            body = json.dumps(content).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        found = Server(listening.server_port, name=health_client.name(tmp_path / "ws"))
        thread = threading.Thread(target=listening.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield found
        finally:
            listening.shutdown()
            thread.join()


@pytest.fixture
def rig(tmp_path: Path, server: Server) -> Iterator[Rig]:
    """A machine file; nothing is installed and nothing runs but the server."""
    yield Rig(
        tmp_path,
        {
            "workspace": "ws",
            "comfyui": {"path": str(SIMULATOR)},
            "instances": {"gpus": 2, "cpu_only": True, "port_start": free_ports(2)},
            "health": {"port": server.port, "token": "${HEALTH_TOKEN}"},
        },
        env={"HEALTH_TOKEN": SECRET},
    )
    files.remove(private_folder.folder(tmp_path / "ws"))


def test_the_server_of_another_machine_is_not_believed(rig: Rig, server: Server) -> None:
    server.answers["/health/comfyui"] = (200, {"status": "healthy"})
    server.name = health_client.name(rig.folder)
    assert rig.doit("probe", code=1).output == NOTHING


NOTHING = "unhealthy: nothing is installed yet; run doit\n"


def test_the_health_server_is_asked_with_the_token_and_its_words_are_one_line(
    rig: Rig, server: Server
) -> None:
    server.answers["/health/comfyui"] = (200, {"status": "degraded", "reason": "a node\nis out"})
    assert rig.doit("probe").output == "degraded: a node\\nis out\n"
    server.answers["/health/comfyui"] = (
        503, {"status": "down", "reason": "comfyui-gpu0 is down", "advice": "run doit"},
    )  # fmt: skip
    assert rig.doit("probe", code=1).output == "down: comfyui-gpu0 is down; run doit\n"
    assert server.asked == [("/health/comfyui", f"Bearer {SECRET}")] * 2


def test_each_question_has_its_endpoint(rig: Rig, server: Server) -> None:
    well, sick = (200, {"status": "healthy"}), (503, {"status": "down", "reason": "killed"})
    instances = "/health/comfyui/instances"
    server.answers = {
        "/livez": well, "/readyz": well, f"{instances}/0": well, f"{instances}/1": sick,
    }  # fmt: skip
    assert rig.doit("probe", "--live").output == "healthy\n"
    assert rig.doit("probe", "--ready", "--wait", "5").output == "healthy\n"
    said = rig.doit("probe", "comfyui-gpu0", "comfyui-gpu1", code=1).output
    assert said == "down: killed\n"
    paths = [path for path, _ in server.asked]
    assert paths == ["/livez", "/readyz?wait=5", f"{instances}/0", f"{instances}/1"]


def test_it_waits_until_it_is_well_and_no_longer(rig: Rig, server: Server) -> None:
    server.first = [(503, {"status": "installing"})] * 2
    server.answers["/health/comfyui"] = (200, {"status": "healthy"})
    assert rig.doit("probe", "--wait", "60").output == "healthy\n"
    assert len(server.asked) == 3
    server.answers["/health/comfyui"] = (503, {"status": "installing"})
    assert rig.doit("probe", "--wait", "1", code=1).output == "installing\n"


@pytest.mark.parametrize(
    "answer", [(401, {"status": "error"}), (200, {"it": "works"}), (404, {"status": "error"})]
)
def test_it_looks_by_itself_where_the_server_says_nothing_of_use(
    rig: Rig, server: Server, answer: tuple[int, dict[str, Any]]
) -> None:
    server.answers["/health/comfyui"] = answer
    said = rig.doit("probe", code=1, HEALTH_TOKEN="").output
    assert said == NOTHING
    assert server.asked[0] == ("/health/comfyui", None)


def test_without_a_server_nobody_is_asked(rig: Rig, server: Server) -> None:
    rig.spec["health"]["server"] = False
    assert rig.doit("probe", "comfyui-gpu0", code=1).output == ("down: not started; run doit\n")
    assert rig.doit("probe", "--live", code=1).output == (
        "PM2 doesn't run, and no doit run is in progress; run doit\n"
    )
    assert rig.doit("probe", ENABLE_COMFYUI="false").output.startswith("disabled: ENABLE_COMFYUI")
    said = rig.doit("probe", "--ready", code=1, ENABLE_COMFYUI="false").output
    assert said == "unhealthy: no instance takes jobs; see /health/comfyui\n"
    assert server.asked == []


def test_what_can_not_be_asked_is_no_health_either(rig: Rig, server: Server) -> None:
    said = rig.doit("probe", "comfyui-gpu7", code=3).output
    assert "no instance comfyui-gpu7; known: comfyui-gpu0, comfyui-gpu1\n" in said
    assert "--live is about the whole machine" in rig.doit("probe", "--live", "x", code=3).output
    rig.spec["health"]["canary"] = "gone.json"
    assert "health.canary" in rig.doit("probe", code=3).output
    assert server.asked == []
