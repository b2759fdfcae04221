"""Files in a real object store: what is put there is found, until it goes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

import pytest

from comfy_machine.services.jobs import object_files
from comfy_machine.services.jobs.distant_file import Absent, Silent
from comfy_machine.services.jobs.job_settings import Bucket
from comfy_machine.services.jobs.object_files import ObjectFiles
from comfy_machine.services.jobs.record import Record
from tests.rig import free_ports
from tests.services.jobs.object_store import ACCESS_KEY, SECRET_KEY, ObjectStore

T = TypeVar("T")
Make = Callable[..., ObjectFiles]
LARGE = bytes(range(256)) * 4 * 20_000
"""20 MB: it is sent in several parts."""


@pytest.fixture(scope="module")
def object_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    with closing(ObjectStore(tmp_path_factory.mktemp("store"))) as it:
        yield it


@pytest.fixture
def make(object_store: ObjectStore, tmp_path: Path) -> Make:
    def made(secret: str = SECRET_KEY, **changed: str) -> ObjectFiles:
        bucket = Bucket(**object_store.bucket(tmp_path.name) | changed)
        return ObjectFiles(bucket, ACCESS_KEY, secret)

    return made


def run(asked: Awaitable[T]) -> T:
    async def running() -> T:
        return await asked

    return asyncio.run(running())


def file(folder: Path, content: bytes) -> Path:
    path = folder / "file"
    path.write_bytes(content)
    return path


async def content(files: ObjectFiles, key: str, first: int = 0, end: int | None = None) -> bytes:
    found = await files.find(key)
    last = found.size if end is None else end
    return b"".join([each async for each in found.read(first, last)])


def has(files: ObjectFiles, key: str) -> bool:
    async def looking() -> bool:
        try:
            await files.find(key)
        except Absent:
            return False
        return True

    return run(looking())


def test_a_file_is_read_as_it_was_put_whole_and_in_part(make: Make, tmp_path: Path) -> None:
    files, key = make(), "jobs/a/1/ünï (1)#?.png"

    async def steps() -> None:
        assert await files.put(key, file(tmp_path, LARGE))
        assert await content(files, key) == LARGE
        assert await content(files, key, 5, 1_000_000) == LARGE[5:1_000_000]
        assert await files.put("empty", file(tmp_path, b""))
        assert await content(files, "empty") == b""

    run(steps())


def test_what_is_not_there_is_absent(make: Make) -> None:
    with pytest.raises(Absent):
        run(make().find("none"))


def test_an_input_that_is_there_is_not_sent_again(make: Make, tmp_path: Path) -> None:
    files = make()

    async def steps() -> None:
        assert await files.put_new("inputs/a", file(tmp_path, b"first"))
        assert await files.put_new("inputs/a", file(tmp_path, b"second"))
        assert await content(files, "inputs/a") == b"first"

    run(steps())


def test_a_store_that_is_away_is_silent_and_left_alone_for_a_while(
    make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = make(endpoint=f"http://127.0.0.1:{free_ports(1)}")
    assert not run(files.put("key", file(tmp_path, b"1")))
    with pytest.raises(Silent):
        run(files.find("key"))
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 1, "the second one didn't ask again"
    assert "doesn't take key" in said[0]


def test_neither_key_is_in_the_log_when_one_is_wrong(
    make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = f"jobs/{ACCESS_KEY}/another-secret"
    assert not run(make(secret="another-secret").put(key, file(tmp_path, b"1")))
    said = capsys.readouterr().out
    assert "doesn't take jobs/***/***: " in said
    assert "another-secret" not in said
    assert ACCESS_KEY not in said


def test_the_sweep_takes_what_belongs_to_no_job_when_it_is_old(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, (known, unknown) = make(), (str(uuid4()) for _ in range(2))
    keys = [files.output_key(Record(id=job, submitted=1.0, attempt=2), "a.png")
            for job in (known, unknown)]  # fmt: skip
    digests = ["0" * 64, "1" * 64]
    inputs = [*map(files.input_key, digests)]
    others = ["jobs/a.png", "jobs/theirs/1/a.png", f"jobs/{unknown}/a.png", "inputs/a.png"]
    for key in (*keys, *inputs, *others):
        assert run(files.put(key, file(tmp_path, b"1")))
    run(files.sweep({known}, digests[:1], 3600))
    assert all(has(files, key) for key in (*keys, *inputs, *others)), "they aren't old"
    monkeypatch.setattr(object_files, "SPARED", 0.0)
    run(files.sweep({known}, digests[:1], 0))
    assert [has(files, key) for key in keys] == [True, False]
    assert [has(files, key) for key in inputs] == [True, False]
    assert all(has(files, key) for key in others), "somebody else's"


def test_an_attempt_of_which_nothing_came_leaves_the_files_of_others(
    make: Make, tmp_path: Path
) -> None:
    files, source = make(), file(tmp_path, b"1")
    late, right = (Record(id="job", submitted=1.0, attempt=number) for number in (1, 11))
    for record in (late, right):
        assert run(files.put(files.output_key(record, "a.png"), source))
    run(files.forget(late))
    assert not has(files, files.output_key(late, "a.png"))
    assert has(files, files.output_key(right, "a.png"))
