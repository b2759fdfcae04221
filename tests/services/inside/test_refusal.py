"""What a process does with new jobs while its drain mark is there."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests
from aiohttp import web

from comfy_machine.host.comfyui import api
from comfy_machine.services.inside.refusal import Refusal
from tests.rig import free_ports

TAKEN = threading.Event()
"""Whether a request has reached the server's own handler."""


class PromptServer:
    """ComfyUI's, as far as it matters: it answers after the whole body has come."""

    def __init__(self) -> None:
        self.app = web.Application()
        self.app.add_routes(
            [
                web.get("/prompt", self.count), web.post("/prompt", self.take),
                web.post("/api/prompt", self.take), web.post("/queue", self.take),
            ]
        )  # fmt: skip

    async def count(self, _: web.Request) -> web.Response:
        return web.json_response({"exec_info": {"queue_remaining": 0}})

    async def take(self, request: web.Request) -> web.Response:
        TAKEN.set()
        await request.json()
        return web.json_response({"prompt_id": "1"})


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "draining"


@pytest.fixture
def port(mark: Path) -> Iterator[int]:
    """A server whose process was started when there was no mark, or the one that there is."""
    module = SimpleNamespace(PromptServer=type("PromptServer", (PromptServer,), {}))
    Refusal(str(mark)).guard(module)
    port, loop = free_ports(1), asyncio.new_event_loop()

    async def start() -> web.AppRunner:
        runner = web.AppRunner(module.PromptServer().app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        return runner

    runner = loop.run_until_complete(start())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield port
    asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(30)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def post(port: int, path: str) -> int:
    return requests.post(f"http://127.0.0.1:{port}{path}", json={}, timeout=30).status_code


def submitted(port: int) -> int | None:
    return api.probe("127.0.0.1", port, 30).submitted


def test_new_jobs_are_refused_as_long_as_the_mark_is_there(mark: Path, port: int) -> None:
    assert (post(port, "/prompt"), submitted(port)) == (200, None)
    mark.touch()
    assert (post(port, "/prompt"), post(port, "/api/prompt"), submitted(port)) == (503, 503, 0)
    assert post(port, "/queue") == 200
    mark.unlink()
    assert (post(port, "/prompt"), submitted(port)) == (200, None)


def test_a_job_that_is_being_submitted_when_the_mark_comes_is_taken_and_counted(
    mark: Path, port: int
) -> None:
    rest = threading.Event()

    def body() -> Iterator[bytes]:
        yield b"{"
        assert rest.wait(30)
        yield b"}"

    answers = []
    url = f"http://127.0.0.1:{port}/prompt"
    slow = threading.Thread(
        target=lambda: answers.append(requests.post(url, data=body(), timeout=30).status_code)
    )
    TAKEN.clear()
    slow.start()
    assert TAKEN.wait(30)
    mark.touch()
    assert submitted(port) == 1
    rest.set()
    slow.join()
    assert answers == [200]
    assert submitted(port) == 0


@pytest.fixture
def predecessors(mark: Path) -> Path:
    mark.touch()
    return mark


def test_the_mark_of_its_predecessor_is_not_its_own(predecessors: Path, port: int) -> None:
    assert (post(port, "/prompt"), submitted(port)) == (200, None)
    predecessors.unlink()
    predecessors.touch()
    assert post(port, "/prompt") == 503


def test_a_server_of_another_shape_is_left_as_it_is(
    mark: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Other:
        def __init__(self, number: int) -> None:
            self.number = number

    module = SimpleNamespace(PromptServer=Other)
    Refusal(str(mark)).guard(module)
    assert module.PromptServer(5).number == 5
    assert "AttributeError" in capsys.readouterr().err
