"""The canary: when it is due, and what it finds out of a simulator whose worker is well or not."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from comfy_machine.host.comfyui import api, own_jobs
from comfy_machine.host.comfyui.own_jobs import Trial
from comfy_machine.services.health.sampling import canary
from comfy_machine.services.health.sampling.canary import (
    Canary,
    Queue,
    Record,
    Schedule,
    Wait,
    after,
    due,
    overdue,
    waited,
)
from comfy_machine.spec.model import SMOKE
from comfy_machine.spec.workflow_file import Prompt
from tests.contract.client import until
from tests.contract.installation import WAITING_NODE, Installation, Server, node
from tests.rig import SIMULATOR

RULES = Schedule(every=300.0, timeout=60.0, untaken=20.0)
OURS = Queue(("o",), (), frozenset("o"))
NOBODYS = Queue((), ("o",), frozenset("o"))

# As after an error of CUDA: the thread ends between two jobs.
DIES_AFTER = """
import execution

class DiesAfter:
    INPUT_TYPES = classmethod(lambda cls: {"required": {}})
    RETURN_TYPES = ()
    FUNCTION = "run"
    OUTPUT_NODE = True

    def run(self):
        finish = execution.PromptQueue.finish
        def last(*arguments, **more):
            finish(*arguments, **more)
            raise SystemExit
        execution.PromptQueue.finish = last
        return {}

NODE_CLASS_MAPPINGS = {"DiesAfter": DiesAfter}
"""


def test_one_is_due_at_once_then_every_so_often_and_sooner_after_one_that_failed() -> None:
    assert due(Record(), RULES, 0.0)
    assert not due(Record(proved=100.0), RULES, 399.0)
    assert due(Record(proved=100.0), RULES, 400.0)
    assert due(Record(100.0, failed=True), RULES, 130.0)
    assert not due(Record(100.0, failed=True), RULES, 129.0)
    often = Schedule(every=5.0, timeout=60.0)
    assert due(Record(100.0, failed=True), often, 105.0)


def test_a_job_of_somebody_else_puts_it_off_but_not_after_one_that_failed() -> None:
    assert after(Record(100.0), 1, 200.0) == Record(200.0)
    assert after(Record(100.0), 0, 200.0) == Record(100.0)
    assert after(Record(100.0, failed=True), 1, 200.0) == Record(100.0, failed=True)


def test_ours_are_told_from_those_of_others() -> None:
    queue = Queue(("o",), ("p", "x", "y"), frozenset("op"))
    assert (queue.theirs, queue.busy) == (2, False)
    assert Queue(("x",)).busy


@pytest.mark.parametrize(
    ("queue", "alone", "idle", "expected"),
    [
        (OURS, 59.0, 0.0, None),
        (OURS, 60.0, 0.0, "its canary job still runs after 60 s"),
        (Queue(("p",), ("o",), frozenset("op")), 60.0, 0.0,
         "its canary job still waits behind an earlier canary after 60 s"),
        (NOBODYS, 19.0, 19.0, None),
        (NOBODYS, 20.0, 20.0, canary.NOT_TAKEN),
        (NOBODYS, 60.0, 19.0, None),
    ],
)  # fmt: skip
def test_it_fails_when_it_runs_or_nothing_does_for_too_long(
    queue: Queue, alone: float, idle: float, expected: str | None
) -> None:
    assert overdue("o", queue, Wait(1000 - alone, 1000 - idle), 1000.0, RULES) == expected


def test_the_time_behind_a_job_of_somebody_else_does_not_count() -> None:
    wait = waited(Wait(0.0, 0.0), Queue(("x",), ("o",), frozenset("o")), 500.0)
    assert wait == Wait(500.0, 500.0)
    assert waited(wait, OURS, 510.0) == Wait(500.0, 510.0)
    assert waited(wait, NOBODYS, 510.0) == wait


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    there = Installation(SIMULATOR, sys.executable, 60, tmp_path)
    base = there.base()
    base.add_node("waiting", WAITING_NODE)
    base.add_node("raising", node("raise ValueError('no luck')", "Raises"))
    base.add_node("leaving", node("import sys; sys.exit(7)", "Leaves"))
    base.add_node("dying", DIES_AFTER)
    try:
        yield there.start(base)
    finally:
        there.close()


def port_of(server: Server) -> int:
    return int(server.url.rsplit(":", 1)[1])


def waiting(file: Path) -> Prompt:
    return {"1": {"class_type": "WaitForFile", "inputs": {"path": str(file)}}}


def step(one: Canary, server: Server, jobs: int | None = 0, idle: bool = True) -> Trial | None:
    return one.step(server.process.pid, "127.0.0.1", port_of(server), jobs, idle)


def history(server: Server) -> int:
    return len(server.json("/history"))


def test_an_idle_instance_runs_one_and_nothing_is_left_of_it(server: Server) -> None:
    one = Canary(SMOKE, RULES)
    assert step(one, server, idle=False) is None
    assert step(one, server, jobs=None) is None
    assert history(server) == 0
    trial = step(one, server)
    assert trial
    assert (trial.ok, trial.reason) == (True, "")
    assert step(one, server) is trial, "another is not due yet"
    assert (history(server), server.running(), server.pending()) == (1, [], [])
    assert list((server.base.path / "output").iterdir()) == []
    assert one.step(0, "127.0.0.1", port_of(server), 0, False) is None, "another process"


def test_it_waits_behind_a_job_that_came_meanwhile(server: Server, tmp_path: Path) -> None:
    end = tmp_path / "end"
    client = api.Client("127.0.0.1", port_of(server))
    job = server.queue(waiting(end))
    until(server.running, 20, "the job")
    trials: list[Trial | None] = []
    rules = Schedule(300.0, timeout=0.3, untaken=0.3)
    smoke = own_jobs.read_workflow(SMOKE)
    thread = threading.Thread(target=lambda: trials.append(canary.run(client, smoke, rules)))
    thread.start()
    until(server.pending, 20, "the canary")
    one = Canary(SMOKE, RULES)
    assert step(one, server, jobs=2) is None, "there is another job"
    assert len(server.pending()) == 1
    thread.join(0.8)
    assert thread.is_alive(), "it waits for longer than its time-out"
    end.touch()
    thread.join(30)
    server.result(job)
    assert [trial and trial.ok for trial in trials] == [True]


def test_one_that_fails_says_why_and_is_tried_again(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "job.json"
    file.write_text(json.dumps({"1": {"class_type": "Raises", "inputs": {"value": 1}}}))
    one = Canary(file, Schedule(every=0.0, timeout=60.0))
    trial = step(one, server)
    assert trial
    assert not trial.ok
    assert trial.reason.startswith("its canary job failed: job ")
    assert trial.reason.endswith("ended in an error: Raises: no luck")
    file.write_text(json.dumps({"1": {"class_type": "NoSuchNode", "inputs": {}}}))
    trial = step(one, server)
    assert trial
    assert trial.reason.startswith("its canary job failed: refused the job: ")
    file.write_text(json.dumps(own_jobs.read_workflow(SMOKE)))
    for _ in range(2):
        trial = step(one, server)
        assert trial
        assert trial.ok
    prompts = [entry["prompt"][2] for entry in server.json("/history").values()]
    colours = [each["1"]["inputs"].get("color") for each in prompts[-2:]]
    assert colours[0] != colours[1], "or the second would come from the cache"


def test_a_worker_that_died_is_found_and_the_canaries_do_not_pile_up(server: Server) -> None:
    server.run({"1": {"class_type": "DiesAfter", "inputs": {}}})
    one = Canary(SMOKE, Schedule(every=0.0, timeout=60.0, untaken=0.3))
    for _ in range(2):
        trial = step(one, server)
        assert trial
        assert (trial.ok, trial.reason) == (False, canary.NOT_TAKEN)
        assert (server.running(), server.pending()) == ([], [])


def test_one_that_takes_the_worker_with_it_is_no_job_of_a_customer(
    server: Server, tmp_path: Path
) -> None:
    file = tmp_path / "job.json"
    file.write_text(json.dumps({"1": {"class_type": "Leaves", "inputs": {"value": 1}}}))
    rules = Schedule(every=0.0, timeout=0.3)
    trial = step(Canary(file, rules), server)
    assert trial
    assert trial.reason == "its canary job still runs after 0.3 s"
    client = api.Client("127.0.0.1", port_of(server))
    client.submit(own_jobs.read_workflow(SMOKE), client=own_jobs.CLIENT)
    again = step(Canary(SMOKE, rules), server, jobs=2)
    assert again
    assert again.reason == "its canary job still waits behind an earlier canary after 0.3 s"
    assert (len(server.running()), server.pending()) == (1, [])


def test_an_instance_that_goes_away_meanwhile_says_nothing(server: Server, tmp_path: Path) -> None:
    client = api.Client("127.0.0.1", port_of(server))
    prompt = waiting(tmp_path / "never")
    found: list[Trial | str | None] = []

    def run() -> None:
        try:
            found.append(canary.run(client, prompt, RULES))
        except ConnectionError:
            found.append("gone")

    thread = threading.Thread(target=run)
    thread.start()
    until(server.running, 20, "the canary")
    os.kill(server.process.pid, signal.SIGKILL)
    server.process.wait()
    thread.join(30)
    assert found == ["gone"]
    assert step(Canary(SMOKE, RULES), server) is None


def test_one_that_somebody_took_out_of_the_queue_says_nothing(
    server: Server, tmp_path: Path
) -> None:
    end = tmp_path / "end"
    server.queue(waiting(end))
    until(server.running, 20, "the job")
    client = api.Client("127.0.0.1", port_of(server))
    smoke = own_jobs.read_workflow(SMOKE)
    trials: list[Trial | None] = []
    thread = threading.Thread(target=lambda: trials.append(canary.run(client, smoke, RULES)))
    thread.start()
    (mine,) = until(server.pending, 20, "the canary")
    client.delete(mine)
    thread.join(30)
    end.touch()
    assert trials == [None]
