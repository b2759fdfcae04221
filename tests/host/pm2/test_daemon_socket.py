"""The daemon's socket: what the real PM2 says there, and what rubbish does."""

from __future__ import annotations

import json
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from comfy_machine.host.pm2 import apps, daemon_socket, pm2
from comfy_machine.host.system import files, private_folder, templates
from comfy_machine.spec.layout import Layout
from tests.conftest import link_supervisor


def test_it_says_what_pm2s_own_command_says(tmp_path: Path, supervisor: Path) -> None:
    layout = Layout(tmp_path / "ws")
    link_supervisor(supervisor, layout)
    layout.logs.mkdir()
    home = private_folder.folder(layout.workspace)
    assert daemon_socket.ask(home) is None
    wanted: list[dict[str, Any]] = [
        {"name": f"app {n} ü", "cwd": str(tmp_path), "command": ["sleep", "1000"], "secrets": {},
         "env": {"LONG": "x" * 100_000, apps.WORKSPACE: str(layout.workspace)}, "log": "/dev/null"}
        for n in range(3)
    ]  # fmt: skip
    rendered = json.loads(templates.render("instance.config.json.j2", apps=wanted))
    try:
        pm2.start(layout, rendered["apps"])
        answer = daemon_socket.ask(home, 10)
        assert answer is not None
        assert answer.daemon == pm2.daemon(layout)
        assert answer.apps is not None
        said = {app["name"]: app for app in json.loads(pm2._call(layout, "jlist"))}
        assert {app["name"] for app in answer.apps} == set(said)
        for app in answer.apps:
            assert app["pid"] == said[app["name"]]["pid"]
            assert app["pm2_env"] == said[app["name"]]["pm2_env"]
            assert app["pm2_env"]["restart_time"] == 0
        assert set(pm2.apps(layout)) == set(said)

        first, *others = [app["pm_id"] for app in answer.apps]
        assert daemon_socket.act(home, "deleteProcessId", others, 30)
        assert [app["pm_id"] for app in pm2.apps(layout).values()] == [first]
        assert not daemon_socket.act(home, "deleteProcessId", [first, 99], 30), "99 isn't there"
        assert pm2.apps(layout) == {}
    finally:
        pm2.kill(layout)
        files.remove(home)


def message(*parts: bytes, version: int = 1, count: int | None = None) -> bytes:
    head = bytes([version << 4 | (len(parts) if count is None else count)])
    return head + b"".join(struct.pack(">I", len(part)) + part for part in parts)


@contextmanager
def saying(home: Path, answer: bytes, *, holds: bool = False) -> Iterator[None]:
    """A daemon that says this to whoever asks, and then hangs up or not."""
    release = threading.Event()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(home / "rpc.sock"))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)
                if holds:
                    release.wait(20)

        thread = threading.Thread(target=serve)
        thread.start()
        yield
        release.set()
        thread.join()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\x12",
        message(b'j:{"args":[[]]}', b"s:1", version=2),
        message(),
        message(b"j:{}", b"s:1"),
        message(b"j:nonsense", b"s:1"),
        message(b'j:{"error":"no"}', b"s:1"),
        message(b'j:{"args":[[{"pid":1}]]}', b"s:1"),
        message(b'j:{"args":[5]}', b"s:1"),
        message(b'j:{"args":[]}', b"s:1"),
        message(b"\xff\xfe", b"s:1"),
        message(b'j:{"args":[[]]}', count=2),
    ],
)
def test_what_is_no_answer_says_nothing_of_apps(tmp_path: Path, answer: bytes) -> None:
    with saying(tmp_path, answer):
        assert daemon_socket.ask(tmp_path) == daemon_socket.Answer(os.getpid(), None)


@pytest.mark.parametrize("answer", [b"", b"\x12", message(b'j:{"error":"no"}', b"s:1")])
def test_what_is_no_success_did_nothing(tmp_path: Path, answer: bytes) -> None:
    with saying(tmp_path, answer):
        assert not daemon_socket.act(tmp_path, "deleteProcessId", [0], 5)
    assert not daemon_socket.act(tmp_path / "nobody", "deleteProcessId", [0], 5)


def test_a_daemon_that_keeps_silent_is_waited_for_no_longer_than_asked(tmp_path: Path) -> None:
    with saying(tmp_path, message(b'j:{"args":[[]]}', b"s:1")[:9], holds=True):
        begin = time.monotonic()
        assert daemon_socket.ask(tmp_path, 0.2) == daemon_socket.Answer(os.getpid(), None)
        assert time.monotonic() - begin < 2


def test_an_answer_is_understood(tmp_path: Path) -> None:
    with saying(tmp_path, message(b'j:{"args":[[{"name":"a"}]]}', b"s:1")):
        assert daemon_socket.ask(tmp_path) == daemon_socket.Answer(os.getpid(), [{"name": "a"}])


def test_a_socket_that_nobody_serves_any_more_is_no_daemon(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "rpc.sock"))
    assert daemon_socket.ask(tmp_path) is None
    assert daemon_socket.ask(tmp_path / ("x" * 200)) is None
