"""Results go when they are old, and the oldest of them when the disk is full."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nats
import pytest

from comfy_machine.services.jobs import job_files
from comfy_machine.services.jobs.job_store import Store, declare
from comfy_machine.services.jobs.record import Record
from comfy_machine.services.jobs.shared_inputs import SharedInputs
from comfy_machine.spec.layout import Layout
from tests.contract.client import until
from tests.host.storage.test_full_disks import mounted
from tests.services.gateway.conftest import Gateway
from tests.services.jobs.conftest import Server

HOUR = 3600.0
MEGABYTE = 1 << 20
JOBS = {name: f"00000000-0000-4000-8000-00000000000{n}" for n, name in enumerate("abcdef")}


@pytest.fixture
def gateway(server: Server, tmp_path: Path) -> Iterator[Gateway]:
    """One that has ended, for what must be there when it starts."""
    it = Gateway(tmp_path, server.url)
    it.end()
    yield it
    it.end()


@pytest.fixture
def layout(gateway: Gateway) -> Layout:
    return Layout(gateway.workspace)


@pytest.fixture
def disk(layout: Layout) -> Iterator[Path]:
    """Outputs on a disk of 10 MB."""
    with mounted(layout.outputs(0).parent, "size=10m") as folder:
        yield folder


def job(server: Server, name: str, **about: Any) -> Record:
    """Store a job that has made one picture."""
    image = {"filename": f"{name}.png", "subfolder": f"jobs/{JOBS[name]}", "type": "output"}
    about = {"submitted": 1.0, "outputs": {"9": {"images": [image]}}, **about}
    record = Record(id=JOBS[name], **about)

    async def storing() -> None:
        client = await nats.connect(server.url)
        store: Store = await declare(client.jetstream())
        await store.create(record, b'{"1": {"class_type": "X", "inputs": {}}}')
        await client.close()

    asyncio.run(storing())
    return record


def made(layout: Layout, name: str, size: int = 3 * MEGABYTE) -> Path:
    """What an instance wrote, and its link in the job's folder."""
    wrote = layout.outputs(0) / f"{name}.png"
    wrote.parent.mkdir(parents=True, exist_ok=True)
    wrote.write_bytes(b"x" * size)
    image = {"filename": wrote.name, "subfolder": "", "type": "output"}
    job_files.collect(layout, 0, JOBS[name], {"9": {"images": [image]}})
    (link,) = job_files.files_of(layout, JOBS[name])
    return link


def test_on_a_full_disk_the_oldest_go_as_many_as_it_takes(
    server: Server, gateway: Gateway, layout: Layout, disk: Path
) -> None:
    now = time.time()
    files = {name: made(layout, name) for name in "abc"}
    job(server, "a", state="succeeded", ended=now - 2 * HOUR)
    job(server, "b", state="succeeded", ended=now - 3 * HOUR)
    job(server, "c", state="succeeded", ended=now - HOUR / 2)
    (disk / "other").write_bytes(b"x" * (MEGABYTE - 200_000))
    gateway.start()
    until(lambda: not files["b"].exists(), 30, "the oldest to go")
    assert files["a"].exists()
    assert files["c"].exists()
    there, gone = (gateway.job(JOBS[name])["outputs"][0] for name in "ab")
    assert (there["size_bytes"], gone["size_bytes"]) == (3 * MEGABYTE, 0)
    answer = gateway.ask("GET", f"/api/v2/assets/{gone['id']}/content")
    assert (answer.status_code, answer.json()["error"]["code"]) == (410, "output_unavailable")
    assert "removed to make room" in answer.json()["error"]["message"]
    assert gateway.ask("GET", f"/api/v2/jobs/{JOBS['b']}/workflow").status_code == 200
    shown = {"filename": "b.png", "subfolder": f"jobs/{JOBS['b']}", "type": "output"}
    assert gateway.ask("GET", "/view", params=shown).status_code == 410


def test_neither_the_last_hour_nor_what_runs_goes_however_full_it_is(
    server: Server, gateway: Gateway, layout: Layout, disk: Path
) -> None:
    files = {name: made(layout, name) for name in "ab"} | {"c": made(layout, "c", 100_000)}
    job(server, "a", state="leased", started=1.0)
    job(server, "b", state="succeeded", ended=time.time() - HOUR / 2)
    job(server, "c", state="succeeded", ended=time.time() - 2 * HOUR)
    (disk / "other").write_bytes(b"x" * (4 * MEGABYTE - 300_000))
    gateway.start()
    until(lambda: not files["c"].exists(), 30, "the only one that may")
    assert files["a"].exists()
    assert files["b"].exists()


def test_what_the_object_store_has_too_isnt_gone(
    server: Server, gateway: Gateway, layout: Layout, disk: Path
) -> None:
    files = {name: made(layout, name) for name in "abc"}
    about = {"state": "succeeded", "stored": True}
    for number, name in enumerate("abc"):
        sizes = {f"{name}.png": 3 * MEGABYTE}
        job(server, name, ended=time.time() - (2 + number) * HOUR, sizes=sizes, **about)
    (disk / "other").write_bytes(b"x" * (MEGABYTE - 200_000))
    gateway.start()
    until(lambda: not files["c"].exists(), 30, "the oldest to go")
    assert gateway.job(JOBS["c"])["outputs"][0]["size_bytes"] == 3 * MEGABYTE


def test_what_no_job_needs_goes_when_the_gateway_starts(
    server: Server, gateway: Gateway, layout: Layout
) -> None:
    long_ago = time.time() - 8 * 24 * HOUR
    files = {name: made(layout, name, 10) for name in "ab"}
    for file in files.values():
        os.utime(file.parent, (long_ago, long_ago))
    inputs = SharedInputs(layout)
    inputs.folder.mkdir(parents=True)
    (inputs.folder / ("0" * 64)).touch()
    job(server, "a", state="succeeded", ended=time.time())
    gateway.start()
    until(lambda: not files["b"].exists(), 30, "the one of no job")
    assert files["a"].exists()
    assert inputs.get("0" * 64), "its job may not be noted yet"
