"""The client of the health server, where there is one and where there isn't."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from comfy_machine.host.comfyui import health_client
from tests.host.comfyui.test_api import Answer, answering
from tests.rig import free_ports

OURS = Path("/workspace")
NAME = health_client.name(OURS)


def ask(port: int, timeout: float = 5.0) -> object:
    server = health_client.Server(OURS, "0.0.0.0", port, "token")
    return health_client.ask(server, "/livez", timeout)


@pytest.mark.parametrize("code", [200, 401, 503])
def test_an_answer_is_its_code_and_its_body(code: int) -> None:
    with answering((code, "application/json", b'{"status": "down", "reason": "x"}'), NAME) as port:
        assert ask(port) == (code, {"status": "down", "reason": "x"})


@pytest.mark.parametrize(
    "answer",
    [
        (200, "text/html", b"<html>"),
        (200, "application/json", b"[]"),
        (200, "application/json", b'{"status": 1}'),
        (404, "application/json", b"{}"),
        (200, "application/json", b"\xff"),
    ],
)
def test_what_is_no_health_server_gives_no_answer(answer: Answer) -> None:
    with answering(answer, NAME) as port:
        assert ask(port) is None


def test_the_server_of_another_workspace_gives_none() -> None:
    well = (200, "application/json", b'{"status": "healthy"}')
    with answering(well, health_client.name(Path("/other"))) as port:
        assert ask(port) is None


def test_nobody_and_one_that_is_silent_give_none_either() -> None:
    assert ask(free_ports(1)) is None
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert ask(silent.getsockname()[1], 0.2) is None
