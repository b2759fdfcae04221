"""Clients that don't send, don't read or don't stop."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from comfy_machine.services.gateway import patient_protocol, requested
from comfy_machine.services.gateway.patient_protocol import PatientProtocol
from comfy_machine.services.gateway.refused import add_refusals
from comfy_machine.services.gateway.requested import json_object
from tests.rig import free_ports

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


@contextmanager
def served() -> Iterator[int]:
    """A small application behind the protocol."""
    app, port = FastAPI(), free_ports(1)
    add_refusals(app)

    @app.post("/")
    async def post(request: Request) -> dict[str, Any]:
        return await json_object(request)

    @app.get("/")
    async def get() -> Response:
        return Response(b"answer")

    @app.get("/endless")
    async def endless() -> Response:
        async def pieces() -> Any:
            while True:
                yield b"x" * 65536

        return StreamingResponse(pieces())

    @app.get("/slow")
    async def slow() -> Response:
        await asyncio.sleep(2)
        return Response(b"answer")

    config = uvicorn.Config(app, port=port, http=PatientProtocol, log_level="critical")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield port
    server.should_exit = server.force_exit = True
    thread.join(10)


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(patient_protocol, "HEAD_TIMEOUT", 1.0)
    monkeypatch.setattr(patient_protocol, "READ_TIMEOUT", 1.0)
    monkeypatch.setattr(requested, "PATIENCE", 1.0)
    with served() as it:
        yield it


def closed_after(client: socket.socket) -> float:
    """Seconds until the server hangs up."""
    client.settimeout(8)
    began = time.monotonic()
    try:
        while client.recv(65536):
            pass
    except ConnectionResetError:
        pass
    return time.monotonic() - began


@pytest.mark.parametrize("sent", [b"", b"GET / HTT", b"GET / HTTP/1.1\r\nHost: a\r\nA: "])
def test_a_head_must_come_in_time(port: int, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(sent)
        assert closed_after(client) < 4


def test_a_head_that_comes_byte_by_byte_is_not_waited_for(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as client:
        began = time.monotonic()
        with suppress(ConnectionResetError, BrokenPipeError):
            while time.monotonic() - began < 6:
                client.sendall(b"A")
                time.sleep(0.1)
        assert time.monotonic() - began < 3


def test_a_head_ends_somewhere(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"GET / HTTP/1.1\r\nA: " + b"x" * 200_000)
        assert closed_after(client) < 0.9


def test_a_body_must_come_in_time(port: int) -> None:
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{"
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(head)
        client.settimeout(4)
        answer = client.recv(65536)
        assert answer.startswith(b"HTTP/1.1 408")


def test_a_body_that_drips_is_not_waited_for(port: int) -> None:
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{"
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(head)
        client.settimeout(0.2)
        began, answer = time.monotonic(), b""
        while not answer and time.monotonic() - began < 6:
            client.sendall(b" ")
            with suppress(TimeoutError):
                answer = client.recv(65536)
        assert answer.startswith(b"HTTP/1.1 408")
        assert time.monotonic() - began < 3


def test_an_answer_must_be_read(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(GET.replace(b"/ ", b"/endless ", 1))
        time.sleep(3)
        began = time.monotonic()
        assert closed_after(client) < 4
        assert time.monotonic() - began < 4


def test_an_answer_that_takes_long_is_waited_for(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.settimeout(8)
        client.sendall(GET.replace(b"/ ", b"/slow ", 1))
        assert client.recv(65536).startswith(b"HTTP/1.1 200")
        client.sendall(GET)
        assert b"HTTP/1.1 200" in client.recv(65536), "the connection can be used again"


def test_a_large_body_in_one_piece_is_no_long_head(port: int) -> None:
    body = json.dumps({"a": "x" * 300_000}).encode()
    head = f"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.settimeout(8)
        for _ in range(2):
            client.sendall(head + body)
            answer = b""
            while len(answer) < len(body):
                answer += client.recv(1 << 20)
            assert answer.startswith(b"HTTP/1.1 200")


def test_all_bodies_together_end_somewhere(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requested, "MOST_HELD", 1000)
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 900\r\n\r\n"
    body = json.dumps({"a": "x" * 891}).encode()
    with (
        socket.create_connection(("127.0.0.1", port)) as first,
        socket.create_connection(("127.0.0.1", port)) as second,
    ):
        for each in (first, second):
            each.settimeout(4)
        first.sendall(head + body[:600])
        time.sleep(0.2)
        second.sendall(head + body[:600])
        assert second.recv(65536).startswith(b"HTTP/1.1 429")
        first.sendall(body[600:])
        assert first.recv(65536).startswith(b"HTTP/1.1 200")
    assert requested._bodies.held == 0
