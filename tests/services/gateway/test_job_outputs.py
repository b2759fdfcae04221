"""Where the files of jobs are looked for, and what is said of those that aren't there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import nats
import pytest

from comfy_machine.services.gateway.announced_instances import AnnouncedInstances
from comfy_machine.services.gateway.job_desk import JobDesk
from comfy_machine.services.gateway.job_outputs import JobOutputs
from comfy_machine.services.gateway.output_files import OutputFile
from comfy_machine.services.gateway.refused import Refused
from comfy_machine.services.jobs.job_settings import Bucket, Settings
from comfy_machine.services.jobs.object_files import ObjectFiles
from comfy_machine.services.jobs.record import Record
from comfy_machine.services.jobs.worker_protocol import ANNOUNCED, Announcement
from comfy_machine.spec.layout import Layout
from tests.rig import free_ports
from tests.services.jobs.conftest import Server

Steps = Callable[[JobDesk, JobOutputs], Awaitable[None]]
OUTPUT = OutputFile("job", "9", "images", "a.png", "jobs/job", "output", "far_gpu0")


def run(server: Server, workspace: Path, steps: Steps, silence: float = 60) -> None:
    """With a gateway's desk on the near machine."""
    settings = Settings(workspace, "near", server.url, shared=True)

    async def running() -> None:
        desk = JobDesk(settings, AnnouncedInstances(silence))
        await desk.start()
        try:
            await steps(desk, JobOutputs(desk, Layout(workspace)))
        finally:
            await desk.stop()

    asyncio.run(running())


async def refusal(outputs: JobOutputs, **about: object) -> Refused:
    record = Record(id="job", submitted=1.0, instance="far_gpu0", **about)  # type: ignore[arg-type]
    with pytest.raises(Refused) as caught:
        await outputs.find(record, OUTPUT)
    return caught.value


async def announce(server: Server) -> None:
    said = Announcement(instance="far_gpu0", machine="far", session="1", number=1, state="away")
    client = await nats.connect(server.url)
    await client.publish(ANNOUNCED, said.model_dump_json().encode())
    await client.close()


async def heard(desk: JobDesk) -> None:
    while not desk.instances.machine_of("far_gpu0"):
        await asyncio.sleep(0.01)


def test_a_machine_that_left_took_its_files_along(server: Server, tmp_path: Path) -> None:
    async def steps(desk: JobDesk, outputs: JobOutputs) -> None:
        while not desk.instances.has_left("far"):
            await asyncio.sleep(0.01)
        refused = await refusal(outputs, machine="far")
        assert (refused.status, refused.code) == (410, "output_unavailable")
        assert str(refused) == "a.png is gone: far, which has it, left"

    run(server, tmp_path, steps, silence=0.1)


def test_one_of_which_nothing_is_known_yet_may_answer_later(server: Server, tmp_path: Path) -> None:
    async def steps(desk: JobDesk, outputs: JobOutputs) -> None:
        refused = await refusal(outputs, machine="far")
        assert (refused.status, refused.headers) == (503, {"Retry-After": "5"})

    run(server, tmp_path, steps)


def test_nobody_has_left_while_nothing_can_be_heard(server: Server, tmp_path: Path) -> None:
    async def steps(desk: JobDesk, outputs: JobOutputs) -> None:
        await announce(server)
        await heard(desk)
        await asyncio.to_thread(server.kill)
        while desk.is_connected or not desk.instances.has_left("far"):
            await asyncio.sleep(0.01)
        assert (await refusal(outputs, machine="far")).status == 503
        await asyncio.to_thread(server.start)
        while not desk.is_connected:
            await asyncio.sleep(0.01)
        began = time.monotonic()
        while not desk.instances.has_left("far"):
            await asyncio.sleep(0.01)
        assert time.monotonic() - began > 0.1, "it has had the time to announce itself again"

    run(server, tmp_path, steps, silence=0.5)


def test_a_job_that_runs_is_asked_for_where_its_instance_is(server: Server, tmp_path: Path) -> None:
    async def steps(desk: JobDesk, outputs: JobOutputs) -> None:
        assert "it isn't on this machine any more" in str(await refusal(outputs))
        await announce(server)
        await heard(desk)
        assert str(await refusal(outputs)).startswith("far, which has the file, doesn't answer")

    run(server, tmp_path, steps)


def test_what_a_silent_store_has_isnt_gone(server: Server, tmp_path: Path) -> None:
    async def steps(desk: JobDesk, outputs: JobOutputs) -> None:
        away = Bucket("s3://bucket", f"http://127.0.0.1:{free_ports(1)}")
        desk.objects = ObjectFiles(away, "key", "secret")
        for about in ({"machine": "near"}, {"machine": "near", "gone": True}):
            refused = await refusal(outputs, stored=True, **about)
            assert str(refused).startswith("the object store, which has the file, doesn't answer")
            assert refused.status == 503

    run(server, tmp_path, steps)


def test_what_is_here_needs_nobody(server: Server, tmp_path: Path) -> None:
    file = Layout(tmp_path).outputs(0).parent / "jobs" / "job" / "a.png"
    file.parent.mkdir(parents=True)
    file.touch()

    async def steps(desk: JobDesk, outputs: JobOutputs) -> None:
        record = Record(id="job", submitted=1.0, machine="far", gone=True)
        assert await outputs.find(record, OUTPUT) == file
        file.unlink()
        assert "it was removed to make room on the disk" in str(
            await refusal(outputs, machine="far", gone=True)
        )
        assert (await refusal(outputs, machine="near")).status == 410

    run(server, tmp_path, steps)
