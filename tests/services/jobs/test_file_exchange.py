"""Files between machines over a real NATS server."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.aio.client import Client

from comfy_machine.services.jobs.distant_file import Absent, DistantFile, Silent
from comfy_machine.services.jobs.file_exchange import PIECE, FileExchange, Wanted
from comfy_machine.services.jobs.shared_inputs import SharedInputs
from comfy_machine.spec.layout import Layout
from tests.services.jobs.conftest import Server

LARGE = os.urandom(20 * PIECE + 5)
Steps = Callable[[FileExchange], Awaitable[None]]


@pytest.fixture
def there(tmp_path: Path) -> Layout:
    """The machine that has files."""
    return Layout(tmp_path / "there")


def run(server: Server, there: Layout, steps: Steps, machine: str = "there") -> None:
    """Two machines, of which one asks."""

    async def running() -> None:
        clients: list[Client] = [await nats.connect(server.url) for _ in range(2)]
        await FileExchange(clients[0], there, machine).serve()
        here = FileExchange(clients[1], Layout(there.workspace / "other"), "here")
        while not await answers(here, machine):
            await asyncio.sleep(0.01)
        await steps(here)
        for client in clients:
            await client.close()

    asyncio.run(running())


async def ended(tasks: set[asyncio.Task[Any]]) -> list[Any]:
    return await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)


async def answers(here: FileExchange, machine: str) -> bool:
    """A subscription takes a moment."""
    try:
        await here.find(machine, wanted("none"))
    except Silent:
        return False
    except Absent:
        return True
    raise AssertionError("there is no such file")


def output(layout: Layout, content: bytes, name: str = "a.png") -> Path:
    path = layout.outputs(0).parent / "jobs" / "job" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def wanted(name: str = "a.png", subfolder: str = "jobs/job", kind: str = "output") -> Wanted:
    return Wanted(name=name, subfolder=subfolder, type=kind)


async def read(file: DistantFile, first: int = 0, end: int | None = None) -> bytes:
    pieces = [each async for each in file.read(first, file.size if end is None else end)]
    assert all(0 < len(each) <= PIECE for each in pieces)
    return b"".join(pieces)


def test_a_file_is_read_whole_and_in_part(server: Server, there: Layout) -> None:
    output(there, LARGE)
    output(there, b"", "empty")

    async def steps(here: FileExchange) -> None:
        file = await here.find("there", wanted())
        assert await read(file) == LARGE
        assert await read(file, 7, 3 * PIECE) == LARGE[7 : 3 * PIECE]
        assert await read(await here.find("there", wanted("empty"))) == b""

    run(server, there, steps)


def test_a_machine_may_have_any_name(server: Server, there: Layout) -> None:
    output(there, b"1")

    async def steps(here: FileExchange) -> None:
        assert await read(await here.find("host.example.org", wanted())) == b"1"

    run(server, there, steps, "host.example.org")


def test_an_input_is_found_by_its_digest(server: Server, there: Layout) -> None:
    there.inputs.mkdir(parents=True)
    (there.inputs / "a.png").write_bytes(b"1")
    graph = {"1": {"class_type": "X", "inputs": {"image": "a.png"}}}
    digest = SharedInputs(there).note(graph)["a.png"]

    async def steps(here: FileExchange) -> None:
        assert await read(await here.find("there", Wanted(digest=digest))) == b"1"
        with pytest.raises(Absent):
            await here.find("there", Wanted(digest="0" * 64))
        with pytest.raises(Absent):
            await here.find("there", Wanted(digest="../a.png"))

    run(server, there, steps)


def test_no_file_of_another_folder_is_given(server: Server, there: Layout) -> None:
    output(there, b"{}", ".sources.json")
    (there.workspace / "secret").write_text("secret")
    (output(there, b"1").parent / "link").symlink_to(there.workspace / "secret")

    async def steps(here: FileExchange) -> None:
        for each in (
            wanted("secret", "../../.."), wanted("secret", "jobs/../../../.."), wanted("link"),
            wanted("../../../../secret"), wanted(str(there.workspace / "secret"), ""), wanted("\0"),
            wanted(".sources.json"), wanted("a.png", kind="other"), wanted("job", "jobs"),
        ):  # fmt: skip
            with pytest.raises(Absent):
                await here.find("there", each)

    run(server, there, steps)


def test_a_machine_that_is_not_there_is_silent_at_once(server: Server, there: Layout) -> None:
    async def steps(here: FileExchange) -> None:
        with pytest.raises(Silent, match="elsewhere isn't there"):
            await asyncio.wait_for(here.find("elsewhere", wanted()), 3)

    run(server, there, steps)


def test_a_file_that_is_replaced_meanwhile_is_not_mixed_with_the_other(
    server: Server, there: Layout
) -> None:
    path = output(there, LARGE)

    async def steps(here: FileExchange) -> None:
        file = await here.find("there", wanted())
        part = path.with_name("part")
        part.write_bytes(LARGE[::-1])
        part.replace(path)
        with pytest.raises(Absent):
            await read(file)

    run(server, there, steps)


def test_a_reader_that_stops_leaves_nothing_behind(server: Server, there: Layout) -> None:
    output(there, LARGE)

    async def steps(here: FileExchange) -> None:
        file = await here.find("there", wanted())
        before = asyncio.all_tasks()
        pieces = file.read(0, len(LARGE))
        assert await pieces.__anext__() == LARGE[:PIECE]
        await pieces.aclose()  # type: ignore[attr-defined]
        left = asyncio.all_tasks() - before
        assert all(isinstance(each, asyncio.CancelledError) for each in await ended(left))

    run(server, there, steps)


def test_what_is_kept_is_whole_or_not_there(server: Server, there: Layout, tmp_path: Path) -> None:
    path = output(there, LARGE)

    async def steps(here: FileExchange) -> None:
        file = await here.find("there", wanted())
        part, _ = await file.keep(tmp_path / "parts")
        assert part.read_bytes() == LARGE
        part.unlink()
        path.unlink()
        with pytest.raises(Absent):
            await file.keep(tmp_path / "parts")
        assert [*(tmp_path / "parts").iterdir()] == []

    run(server, there, steps)
