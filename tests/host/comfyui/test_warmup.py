"""The warm-up job: it is done once for a process, by one of those who would do it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from comfy_machine.host.comfyui import warmup
from comfy_machine.host.comfyui.own_jobs import Trial
from comfy_machine.host.pm2.apps import App
from comfy_machine.host.system import files, locks, private_folder
from comfy_machine.spec.layout import Layout
from comfy_machine.spec.model import SMOKE
from tests.contract.client import until
from tests.contract.installation import Server
from tests.rig import free_ports

LISTEN = "127.0.0.1"


@pytest.fixture
def app(server: Server) -> App:
    started = psutil.Process(server.process.pid).create_time()
    port = int(server.url.rsplit(":", 1)[1])
    return App("comfyui-gpu0", server.process.pid, "", True, started, port)


@pytest.fixture
def layout(tmp_path: Path) -> Iterator[Layout]:
    found = Layout(tmp_path / "ws")
    found.instance(0).mkdir(parents=True)
    yield found
    files.remove(private_folder.folder(found.workspace))


def waiting(folder: Path) -> Path:
    """A workflow that ends when the file `end` is there."""
    inputs = {"path": str(folder / "end")}
    file = folder / "job.json"
    file.write_text(json.dumps({"1": {"class_type": "WaitForFile", "inputs": inputs}}))
    return file


def test_it_is_done_once_for_a_process_and_anew_for_the_next(
    server: Server, app: App, layout: Layout
) -> None:
    before = len(server.json("/history"))
    assert warmup.outcome(layout, 0, app) is None
    trial = warmup.warm(layout, 0, app, LISTEN, SMOKE, 30)
    assert (trial.ok, trial.reason) == (True, "")
    assert warmup.warm(layout, 0, app, LISTEN, SMOKE, 30) == trial == warmup.outcome(layout, 0, app)
    assert len(server.json("/history")) == before + 1
    assert warmup.is_warm(layout, 0, app)
    assert not warmup.is_warm(layout, 0, replace(app, pid=app.pid + 1))
    assert not warmup.is_warm(layout, 0, replace(app, started=app.started + 60))
    assert warmup.is_warm(layout, 0, replace(app, started=app.started + 1)), "the clock was set"


def test_one_that_fails_is_noted_with_the_reason_and_tried_again(
    app: App, layout: Layout, tmp_path: Path
) -> None:
    file = tmp_path / "job.json"
    file.write_text(json.dumps({"1": {"class_type": "NoSuchNode", "inputs": {}}}))
    trial = warmup.warm(layout, 0, app, LISTEN, file, 30)
    assert not trial.ok
    assert "NoSuchNode" in trial.reason
    assert warmup.outcome(layout, 0, app) == trial
    assert not warmup.is_warm(layout, 0, app)
    assert not warmup.is_due(trial, time.time())
    assert warmup.is_due(trial, time.time() + warmup.RETRY_AFTER)
    assert warmup.is_due(None, 0.0)
    file.unlink()
    assert "is not there" in warmup.warm(layout, 0, app, LISTEN, file, 30).reason
    assert warmup.warm(layout, 0, app, LISTEN, SMOKE, 30).ok


def test_an_instance_that_does_not_answer_is_not_warm(app: App, layout: Layout) -> None:
    gone = replace(app, port=free_ports(1))
    trial = warmup.warm(layout, 0, gone, LISTEN, SMOKE, 30)
    assert (trial.ok, trial.reason) == (False, "it doesn't answer (ConnectionRefusedError)")


def test_two_that_would_do_it_at_once_have_it_done_once(
    server: Server, app: App, layout: Layout, tmp_path: Path
) -> None:
    file, found = waiting(tmp_path), list[Trial]()

    def warm() -> None:
        found.append(warmup.warm(layout, 0, app, LISTEN, file, 30))

    threads = [threading.Thread(target=warm) for _ in range(2)]
    for thread in threads:
        thread.start()
    until(server.running, 20, "the job")
    late = warmup.warm(layout, 0, app, LISTEN, file, 0.2)
    assert (late.ok, late.reason) == (False, "another process is still running it")
    assert (len(server.running()), server.pending()) == (1, [])
    (tmp_path / "end").touch()
    for thread in threads:
        thread.join(30)
    assert len(found) == 2
    assert found[0] == found[1] == warmup.outcome(layout, 0, app)


def test_it_takes_no_longer_than_it_may(
    server: Server, app: App, layout: Layout, tmp_path: Path
) -> None:
    trial = warmup.warm(layout, 0, app, LISTEN, waiting(tmp_path), 0.3)
    assert trial.reason.endswith("didn't finish within 0.3 s")
    (tmp_path / "end").touch()
    until(lambda: not server.running(), 20, "the end of the job")


def test_a_damaged_note_and_a_removed_workspace_are_no_trouble(app: App, layout: Layout) -> None:
    layout.warm(0).write_text('{"pid": "x"')
    assert warmup.outcome(layout, 0, app) is None
    layout.instance(0).rename(layout.workspace / "away")
    assert warmup.warm(layout, 0, app, LISTEN, SMOKE, 30).ok
    assert not layout.instance(0).exists()


def test_a_lock_that_somebody_holds_is_not_waited_for(tmp_path: Path) -> None:
    with locks.attempt(tmp_path / "lock") as first, locks.attempt(tmp_path / "lock") as second:
        assert (first, second) == (True, False)
    with locks.attempt(tmp_path / "lock") as third:
        assert third


def test_a_process_that_has_passed_the_gate_is_not_cold_for_a_job_that_is_new(
    tmp_path: Path,
) -> None:
    layout = Layout(tmp_path)
    app = App("comfyui-gpu0", 4711, "", True, 1.0, 8188)
    assert warmup.is_cold(layout, 0, app)
    files.write_receipt(layout.healthy(0), {"pid": 4711, "fingerprint": ""})
    assert not warmup.is_cold(layout, 0, app)
    files.write_receipt(layout.healthy(0), {"pid": 4712, "fingerprint": ""})
    assert warmup.is_cold(layout, 0, app), "PM2 started it anew"
