"""What jobs read and make on a machine of several, with a real worker."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import nats
import pytest
from blake3 import blake3
from nats.aio.msg import Msg

from comfy_machine.services.jobs.file_exchange import SIZE, VERSION, Wanted
from comfy_machine.services.jobs.instance_worker import RESTS
from comfy_machine.services.jobs.shared_inputs import SharedInputs
from tests.contract.client import until
from tests.contract.conftest import installation_of
from tests.services.jobs.conftest import Server
from tests.services.jobs.site import PATIENCE, Site, ends

DIGEST = blake3(b"ours").hexdigest()


@pytest.fixture
def site(server: Server, tmp_path: Path) -> Iterator[Site]:
    installation = installation_of("simulator-2026", tmp_path / "comfyui")
    it = Site(server, installation, tmp_path)
    it.settings(shared=True)
    with closing(installation), closing(it):
        it.begin()
        yield it


class Stuck:
    """A machine that says how large a file is, and then nothing."""

    def __init__(self, url: str) -> None:
        self._url, self.asked, self._ready = url, threading.Event(), threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._live()), daemon=True)
        self._thread.start()
        assert self._ready.wait(20)

    async def _live(self) -> None:
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        client = await nats.connect(self._url)

        async def answer(message: Msg) -> None:
            if Wanted.model_validate_json(message.data).length:
                self.asked.set()
            else:
                await client.publish(message.reply, b"", headers={SIZE: "4", VERSION: "1"})

        await client.subscribe("comfy.jobs.files.stuck", cb=answer)
        self._ready.set()
        await self._ended.wait()
        await client.close()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(20)


@contextmanager
def fetching(site: Site) -> Iterator[str]:
    """A job whose input is on its way, and never comes."""
    with closing(Stuck(site.url)) as machine:
        workflow = site.reading("notes.txt")
        job = site.submit(workflow, inputs={"notes.txt": DIGEST}, origin="stuck")
        assert machine.asked.wait(PATIENCE), site.logs()
        yield job


def test_a_job_is_cancelled_while_its_inputs_are_fetched(site: Site) -> None:
    with fetching(site) as job:
        site.cancel(job)
        record = site.until(job, "cancelled")
        assert (record.attempt, record.rested) == (1, 0), "it ended at once"
    assert site.ends(site.submit(site.work())).state == "succeeded"


def test_it_is_given_back_by_a_worker_that_ends(site: Site) -> None:
    ends(site.workers[0], signal.SIGTERM, 30)
    site.worker(stop_timeout=11)
    with fetching(site) as job:
        ends(site.workers[0], signal.SIGTERM, 30)
        record = site.until(job, "waiting")
        assert (record.attempt, record.counted) == (1, 0)


def test_it_waits_for_a_machine_that_is_away_but_not_for_ever(site: Site) -> None:
    workflow, inputs = site.reading("notes.txt"), {"notes.txt": DIGEST}
    job = site.submit(workflow, inputs=inputs, origin="away", rested=RESTS)
    error = site.ends(job).error
    assert error
    assert error.type == "missing_input"
    assert error.message == "what it reads can't be had: away isn't there"


def test_a_job_of_this_machine_reads_the_file_itself(site: Site) -> None:
    site.layout.inputs.joinpath("notes.txt").write_text("ours")
    noted = SharedInputs(site.layout).note(site.reading("notes.txt"))
    job = site.submit(site.reading("notes.txt"), inputs=noted, origin="here")
    assert site.ends(job).outputs["1"] == {"text": ["ours"], "named": ["notes.txt"]}


def test_or_what_it_was_when_the_job_was_submitted(site: Site) -> None:
    path = site.layout.inputs / "notes.txt"
    path.write_text("ours")
    noted = SharedInputs(site.layout).note(site.reading("notes.txt"))
    path.unlink()
    path.write_text("newer")
    job = site.submit(site.reading("notes.txt"), inputs=noted, origin="here")
    assert site.ends(job).outputs["1"] == {"text": ["ours"], "named": [f"{DIGEST}.txt"]}


def test_other_bytes_are_never_called_by_the_digest(site: Site) -> None:
    path = site.layout.inputs / "notes.txt"
    path.write_text("ours")
    noted = SharedInputs(site.layout).note(site.reading("notes.txt"))
    path.write_text("written into the same file")
    job = site.submit(site.reading("notes.txt"), inputs=noted, origin="here")
    error = site.ends(job).error
    assert error
    assert (error.type, error.message) == ("missing_input", "notes.txt isn't on here any more")


def test_the_record_says_where_the_files_are_and_how_large(site: Site) -> None:
    record = site.ends(site.submit(site.pictures()))
    assert (record.machine, record.stored) == ("here", False)
    folder = site.layout.outputs(0).parent / "jobs" / record.id
    assert record.sizes == {
        path.name: path.stat().st_size for path in folder.iterdir() if path.name[0] != "."
    }
    assert len(record.sizes) == 2


def test_on_a_machine_by_itself_it_says_nothing_of_that(site: Site) -> None:
    site.settings()
    ends(site.workers[0], signal.SIGTERM, 30)
    site.worker()
    record = site.ends(site.submit(site.pictures()))
    assert (record.machine, record.sizes, record.inputs) == ("", {}, {})
    until(lambda: not (site.layout.inputs / ".kept").exists(), 1, "nothing kept")
