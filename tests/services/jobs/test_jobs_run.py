"""Jobs from the record to the result, with real processes: each job has exactly one result."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from comfy_machine.services.jobs import job_files
from tests.contract.client import until
from tests.contract.conftest import installation_of
from tests.services.jobs.conftest import Server
from tests.services.jobs.site import PATIENCE, Site, all_end, ends, kill

of_each_time = pytest.mark.parametrize("as_of", ["2025", "2026"])


@pytest.fixture
def as_of() -> str:
    return "2026"


@pytest.fixture
def site(as_of: str, server: Server, tmp_path: Path) -> Iterator[Site]:
    installation = installation_of(f"simulator-{as_of}", tmp_path / "comfyui")
    it = Site(server, installation, tmp_path)
    with closing(installation), closing(it):
        yield it


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    return tmp_path / "gate"


@of_each_time
def test_a_job_runs_and_has_its_files(site: Site) -> None:
    site.begin()
    record = site.ends(site.submit(site.pictures()))
    assert record.state == "succeeded"
    assert (record.attempt, record.instance) == (1, "here_comfyui-gpu0")
    for node, kind in (("2", "output"), ("3", "temp")):
        (image,) = record.outputs[node]["images"]
        assert (image["type"], image["subfolder"]) == (kind, f"jobs/{record.id}")
        file = site.layout.outputs(0).parent / image["subfolder"] / image["filename"]
        assert file.read_bytes().startswith(b"\x89PNG")


def test_an_equal_job_has_files_too(site: Site) -> None:
    site.begin()
    workflow = site.pictures()
    first, second = (site.ends(site.submit(workflow)) for _ in range(2))
    assert first.outputs["2"]["images"][0]["subfolder"] == f"jobs/{first.id}"
    assert second.outputs["2"]["images"][0]["subfolder"] == f"jobs/{second.id}"
    assert second.state == "succeeded"


@of_each_time
def test_a_node_that_fails_is_final_and_said(site: Site) -> None:
    site.begin()
    record = site.ends(site.submit(site.work(does="fail")))
    assert record.state == "failed"
    assert record.error
    assert (record.error.type, record.error.node) == ("ValueError", "1")
    assert record.error.node_type == "Work"
    assert record.error.message == "it can't be done"
    assert site.runs() == 1


@of_each_time
def test_a_workflow_that_comfyui_refuses_is_final_and_said(site: Site) -> None:
    site.begin()
    record = site.ends(site.submit({"7": {"class_type": "SaveImage", "inputs": {}}}))
    assert record.state == "failed"
    assert record.error
    assert (record.error.node, record.error.node_type) == ("7", "SaveImage")


def test_a_job_without_memory_is_tried_once_more_where_it_was(site: Site) -> None:
    site.begin()
    record = site.ends(site.submit(site.work(does="memory")))
    assert record.state == "failed"
    assert record.error
    assert record.error.type.endswith("OutOfMemoryError")
    assert site.runs() == 2


def test_a_job_that_no_gpu_has_memory_for_is_told_so(site: Site) -> None:
    site.scheduler()
    site.instance(pretends_gpu=True)
    site.worker()
    record = site.ends(site.submit(site.work(does="memory")))
    assert record.state == "failed"
    assert record.error
    assert record.error.type == "out_of_memory"
    assert "no instance has more than" in record.error.message
    assert site.runs() == 2


def test_jobs_run_on_all_instances_at_once(site: Site, gate: Path) -> None:
    site.begin(2)
    jobs = [site.submit(site.work(gate)) for _ in range(4)]
    site.until_run(2)
    assert {site.read(job).state for job in jobs} == {"leased", "waiting"}
    gate.touch()
    found = all_end(site, jobs)
    assert [record.state for record in found] == ["succeeded"] * 4
    assert {record.instance for record in found} == {"here_comfyui-gpu0", "here_comfyui-gpu1"}
    assert site.runs() == 4


@of_each_time
def test_a_running_job_is_cancelled(site: Site, gate: Path) -> None:
    site.begin()
    job = site.submit(site.work(gate))
    site.until_run()
    site.cancel(job)
    assert site.ends(job).state == "cancelled"
    gate.touch()
    assert site.ends(site.submit(site.work())).state == "succeeded"


@of_each_time
def test_a_killed_workers_job_is_adopted_and_runs_once(site: Site, gate: Path) -> None:
    site.scheduler()
    site.instance()
    worker = site.worker()
    job = site.submit(site.work(gate))
    site.until_run()
    kill(worker)
    site.worker()
    gate.touch()
    record = site.ends(job)
    assert (record.state, record.attempt) == ("succeeded", 1)
    assert site.runs() == 1


def test_a_job_that_ended_without_its_worker_is_not_lost(site: Site, gate: Path) -> None:
    site.scheduler()
    instance = site.instance()
    worker = site.worker()
    job = site.submit(site.work(gate))
    site.until_run()
    kill(worker)
    gate.touch()
    until(lambda: instance.json(f"/history/{job}"), PATIENCE, "the end at the instance")
    site.worker()
    assert site.ends(job).state == "succeeded"
    assert site.runs() == 1


def test_a_job_of_a_worker_that_never_comes_back_goes_elsewhere(site: Site, gate: Path) -> None:
    site.scheduler()
    site.instance(0)
    worker = site.worker(0)
    job = site.submit(site.work(gate))
    site.until_run()
    kill(worker)
    site.instance(1)
    site.worker(1)
    site.until_run(2)
    gate.touch()
    record = site.ends(job)
    assert (record.state, record.attempt) == ("succeeded", 2)
    assert record.instance == "here_comfyui-gpu1"


def test_a_worker_that_is_stopped_and_woken_writes_no_late_result(site: Site, gate: Path) -> None:
    site.scheduler()
    site.instance(0)
    worker = site.worker(0)
    job = site.submit({"0": site.work(gate)["1"], **site.pictures()})
    site.until_run()
    worker.send_signal(signal.SIGSTOP)
    site.instance(1)
    site.worker(1)
    site.until_run(2)
    gate.touch()
    record = site.ends(job)
    kept = {path: path.stat().st_ino for path in job_files.files_of(site.layout, job)}
    worker.send_signal(signal.SIGCONT)
    for other in [site.submit(site.work()) for _ in range(6)]:
        assert site.ends(other).state == "succeeded"
    assert site.read(job) == record
    now = {path: path.stat().st_ino for path in job_files.files_of(site.layout, job)}
    assert now == kept != {}, "the files are those of the run that counts"
    assert record.instance == "here_comfyui-gpu1"


def test_a_worker_that_is_stopped_and_woken_ends_what_another_has(site: Site, gate: Path) -> None:
    site.scheduler()
    instance = site.instance(0)
    worker = site.worker(0)
    job = site.submit(site.work(gate))
    site.until_run()
    worker.send_signal(signal.SIGSTOP)
    site.instance(1)
    site.worker(1)
    site.until_run(2)
    worker.send_signal(signal.SIGCONT)
    until(lambda: not instance.running(), PATIENCE, "the first run to be ended")
    gate.touch()
    record = site.ends(job)
    assert (record.state, record.attempt) == ("succeeded", 2)
    assert record.instance == "here_comfyui-gpu1"


def test_two_workers_of_one_name_never_run_together(site: Site, gate: Path) -> None:
    site.begin()
    first = site.workers[0]
    job = site.submit(site.work(gate))
    site.until_run()
    second = site.worker(0)
    until(lambda: "takes jobs elsewhere" in site.logs(), PATIENCE, "the second to say so")
    gate.touch()
    assert site.ends(job).state == "succeeded"
    assert site.runs() == 1
    kill(first)
    assert site.ends(site.submit(site.work())).state == "succeeded", "the second takes over"
    assert second.poll() is None


def test_an_instance_that_ends_gives_its_job_to_another(site: Site, gate: Path) -> None:
    site.begin(2)
    job = site.submit(site.work(gate))
    site.until_run()
    gpu = int(site.read(job).instance[-1])
    kill(site.instances[gpu].process)
    site.until_run(2)
    gate.touch()
    record = site.ends(job)
    assert (record.state, record.attempt) == ("succeeded", 2)


def test_a_job_that_ends_its_instance_each_time_is_dead(site: Site, gate: Path) -> None:
    site.settings(attempts=2)
    site.begin(2)
    job = site.submit(site.work(gate))
    for times in (1, 2):
        site.until_run(times)
        gpu = int(site.read(job).instance[-1])
        kill(site.instances[gpu].process)
    record = site.ends(job)
    assert (record.state, record.attempt) == ("dead", 2)
    assert record.error
    assert record.error.type == "attempts_exhausted"


def test_a_worker_that_is_asked_to_end_lets_its_job_end(site: Site, gate: Path) -> None:
    site.scheduler()
    site.instance()
    worker = site.worker()
    job = site.submit(site.work(gate))
    site.until_run()
    worker.send_signal(signal.SIGTERM)
    late = site.submit(site.work())
    gate.touch()
    assert worker.wait(PATIENCE) == 0
    assert site.ends(job).state == "succeeded"
    assert site.read(late).state == "waiting"


def test_a_job_that_is_given_back_counts_no_attempt(site: Site, gate: Path) -> None:
    site.scheduler()
    site.instance()
    worker = site.worker(stop_timeout=11)
    job = site.submit(site.work(gate))
    site.until_run()
    assert ends(worker, signal.SIGTERM, PATIENCE) == 0
    assert (site.read(job).state, site.read(job).counted) == ("waiting", 0)
    gate.touch()
    site.worker()
    record = site.ends(job)
    assert (record.state, record.counted) == ("succeeded", 1)


def test_a_draining_instance_gets_no_job(site: Site) -> None:
    site.begin()
    site.ends(site.submit(site.work()))
    mark = site.layout.draining(0)
    mark.touch()
    job = site.submit(site.work())
    site.instance(1)
    site.worker(1)
    assert site.ends(job).instance == "here_comfyui-gpu1"
    assert site.runs() == 2


def test_an_instance_that_runs_jobs_of_others_gets_none(site: Site, gate: Path) -> None:
    site.scheduler()
    instance = site.instance()
    theirs = instance.queue(site.work(gate))
    until(lambda: site.runs() == 1, PATIENCE, "their job")
    site.worker()
    job = site.submit(site.work())
    site.instance(1)
    site.worker(1)
    assert site.ends(job).instance == "here_comfyui-gpu1"
    gate.touch()
    until(lambda: instance.json(f"/history/{theirs}"), PATIENCE, "their job's end")


def test_a_scheduler_that_is_killed_is_replaced(site: Site, gate: Path) -> None:
    first = site.scheduler()
    site.instance()
    site.worker()
    running = site.submit(site.work(gate))
    site.until_run()
    waiting = site.submit(site.work())
    site.scheduler()
    kill(first)
    gate.touch()
    assert [record.state for record in all_end(site, [running, waiting])] == ["succeeded"] * 2
    assert site.runs() == 2


def test_a_scheduler_that_is_stopped_and_woken_does_no_harm(site: Site) -> None:
    first = site.scheduler()
    site.instance()
    site.worker()
    site.ends(site.submit(site.work()))
    first.send_signal(signal.SIGSTOP)
    site.scheduler()
    jobs = [site.submit(site.work()) for _ in range(5)]
    all_end(site, jobs)
    first.send_signal(signal.SIGCONT)
    jobs += [site.submit(site.work()) for _ in range(5)]
    assert {record.state for record in all_end(site, jobs)} == {"succeeded"}
    assert site.runs() == 11


def test_a_server_that_is_killed_and_comes_back_loses_nothing(site: Site, gate: Path) -> None:
    site.begin()
    running = site.submit(site.work(gate))
    site.until_run()
    waiting = [site.submit(site.work()) for _ in range(5)]
    site.server.kill()
    gate.touch()
    site.server.start()
    assert {record.state for record in all_end(site, [running, *waiting])} == {"succeeded"}
    assert site.runs() == 6


def test_nobody_starts_jobs_while_they_are_paused(site: Site) -> None:
    site.begin()
    site.ends(site.submit(site.work()))
    site.call(lambda store: store.pause(True))
    # Only one that looks after that has noticed.
    asleep = time.monotonic() + 3
    until(lambda: time.monotonic() > asleep, 5, "the scheduler to look")
    job = site.submit(site.work())
    assert site.read(job).state == "waiting"
    site.call(lambda store: store.pause(False))
    assert site.ends(job).state == "succeeded"


@pytest.mark.parametrize("module", ["scheduler", "instance_worker"])
def test_without_its_settings_a_program_ends(module: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", f"comfy_machine.services.jobs.{module}", str(tmp_path / "no")]
    assert subprocess.run(command, check=False, capture_output=True).returncode


def test_a_job_answered_from_the_cache_with_a_removed_file_runs_again(site: Site) -> None:
    site.begin()
    workflow = site.pictures()
    first = site.ends(site.submit(workflow))
    job_files.drop(site.layout, first.id)
    second = site.ends(site.submit(workflow))
    assert second.state == "succeeded"
    assert second.returned, "that counts no attempt"
    (image,) = second.outputs["2"]["images"]
    assert job_files.folder_of(site.layout, second.id).joinpath(image["filename"]).is_file()


def test_a_partners_key_reaches_its_node_and_is_forgotten_with_the_end(site: Site) -> None:
    site.begin()
    job = site.submit(site.work(), keys={"api_key_comfy_org": "of a partner"})
    ended = site.ends(job)
    assert ended.state == "succeeded"
    assert site.notes.read_text() == "run of a partner\n"
    until(
        lambda: site.call(lambda store: store.partner_keys.get(ended.keys)) is None,
        PATIENCE,
        "the key to be forgotten",
    )
    files = [each for each in site.folder.rglob("*") if each.is_file() and each != site.notes]
    assert not [each for each in files if b"of a partner" in each.read_bytes()]


def test_a_job_whose_key_a_restarted_server_has_lost_says_so(site: Site) -> None:
    site.begin()
    site.call(lambda store: store.pause(True))
    job = site.submit(site.work(), keys={"api_key_comfy_org": "of a partner"})
    site.server.kill()
    site.server.start()
    site.patiently(lambda store: store.pause(False))
    ended = site.ends(job)
    assert ended.error
    assert (ended.state, ended.error.type) == ("failed", "keys_lost")
    again = site.submit(site.work(), keys={"api_key_comfy_org": "of a partner"})
    assert site.ends(again).state == "succeeded", "the bucket was made again"


def test_programs_end_at_once_where_the_server_is_gone(site: Site) -> None:
    site.begin()
    site.ends(site.submit(site.work()))
    site.server.kill()
    late = site.worker()
    until(lambda: "instance_worker" in site.command_of(late), PATIENCE, "the worker's start")
    for process in site.processes:
        if process is not late:
            assert ends(process, signal.SIGTERM, 20) == 0
    assert ends(late, signal.SIGTERM, 20) == -signal.SIGTERM
