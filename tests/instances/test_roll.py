"""A roll: changed instances go one after the other, drained first, and one always serves."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.conftest import MachineMaker
from tests.contract.client import until
from tests.forge import Forge
from tests.rig import Rig

WAIT = """
import os, time

class Wait:
    CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_NODE = "test", "run", (), True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"file": ("STRING", {})}}

    def run(self, file):
        while not os.path.exists(file):
            time.sleep(0.01)
        return ()

NODE_CLASS_MAPPINGS = {"Wait": Wait}
"""
NEW = ["--preview-method", "none"]


def submit(rig: Rig, file: Path, gpu: int = 0) -> str:
    """A job that lasts until the file is there."""
    inputs = {"file": str(file)}
    return rig.client(gpu).submit({"1": {"class_type": "Wait", "inputs": inputs}})


def pids(rig: Rig) -> dict[str, int]:
    return {name: app.pid for name, app in rig.running().items()}


@contextmanager
def watched(rig: Rig, gpus: int) -> Iterator[list[int]]:
    """How many instances were healthy, look by look."""
    seen: list[int] = []
    stop = threading.Event()

    def look() -> None:
        while not stop.wait(0.02):
            seen.append(sum(rig.healthy(gpu) for gpu in range(gpus)))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()


def test_of_two_instances_one_is_healthy_at_every_moment(
    machine: MachineMaker, forge: Forge
) -> None:
    node = forge.node("alpha")
    rig = machine(custom_nodes=[{"url": node.url}], instances={"gpus": 2})
    rig.doit()
    before = pids(rig)
    rig.spec["instances"]["args"] = NEW
    node.commit({"more.py": ""})
    rig.doit("update")
    with watched(rig, 2) as seen:
        run = rig.doit()
    assert "instances:start" in run.executed
    assert len(seen) > 20
    assert set(seen) == {1, 2}
    assert not set(before.values()) & set(pids(rig).values())
    assert {psutil.Process(pid).cwd() for pid in pids(rig).values()} == {str(rig.comfyui)}


def test_an_instance_is_drained_before_it_is_replaced(
    machine: MachineMaker, forge: Forge, tmp_path: Path
) -> None:
    node = forge.repository("wait", {"__init__.py": WAIT})
    worker = [sys.executable, "-c", "import time; time.sleep(600)"]
    rig = machine(
        custom_nodes=[{"url": node.url}],
        instances={"gpus": 2},
        workers=[
            {"name": "fetch", "command": [*worker]},
            {"name": "stay", "command": [*worker], "restart_with_instance": False},
        ],
    )
    rig.doit()
    before = pids(rig)
    done = tmp_path / "done"
    jobs = [submit(rig, done), submit(rig, done)]
    rig.spec["instances"]["args"] = NEW
    mark = rig.layout.draining(0)
    with rig.going() as roll:
        until(mark.exists, 60, "the mark")
        named = psutil.Process(before["stay-gpu0"]).environ()["WORKER_DRAIN_FILE"]
        assert Path(named) == mark, "its worker knows where to look"
        until(lambda: len(rig.client().get("/queue")["queue_running"]) == 1, 10, "the first job")
        left = {name: pid for name, pid in before.items() if name != "fetch-gpu0"}
        assert pids(rig) == left, "its worker ended first, and fetches no job that is refused"
        assert "draining" in rig.doit("status", "--json", code=None).output
        done.touch()
        said, _ = roll.communicate(timeout=60)
    assert roll.returncode == 0, said
    assert "comfyui-gpu0 restarts after 2 jobs" in said
    assert not mark.exists()
    assert pids(rig)["comfyui-gpu0"] != before["comfyui-gpu0"]
    assert pids(rig)["fetch-gpu0"] != before["fetch-gpu0"], "a worker ends with its instance"
    assert pids(rig)["stay-gpu0"] == before["stay-gpu0"]
    assert len(jobs) == 2


def test_a_job_that_lasts_longer_than_drain_timeout_is_given_up(
    machine: MachineMaker, forge: Forge, tmp_path: Path
) -> None:
    node = forge.repository("wait", {"__init__.py": WAIT})
    rig = machine(custom_nodes=[{"url": node.url}], instances={"drain_timeout": 1})
    rig.doit()
    jobs = [submit(rig, tmp_path / "never") for _ in range(2)]
    rig.spec["instances"]["args"] = NEW
    run = rig.doit()
    cut = "comfyui-gpu0 still had 2 jobs after 1 s (instances.drain_timeout), which are cut: "
    assert f"{cut}{', '.join(jobs)}\n" in run.output
    assert rig.healthy()


def test_one_that_is_silent_for_a_while_keeps_its_jobs_and_goes_alone(
    machine: MachineMaker,
) -> None:
    rig = machine(instances={"gpus": 2})
    rig.doit()
    silent = psutil.Process(pids(rig)["comfyui-gpu1"])
    silent.suspend()
    rig.spec["instances"]["args"] = NEW
    with rig.going() as roll:
        until(rig.layout.draining(1).exists, 60, "its turn")
        assert not rig.layout.draining(0).exists()
        silent.resume()
        assert roll.wait(60) == 0
    assert "Stopped server" in rig.layout.log("comfyui-gpu1").read_text(), "asked, not killed"


def test_one_that_serves_nothing_is_replaced_first(machine: MachineMaker) -> None:
    rig = machine(instances={"gpus": 2})
    rig.doit()
    rig.pm2("stop", "comfyui-gpu1")
    serving = pids(rig)["comfyui-gpu0"]
    rig.spec["instances"]["args"] = ["no-such-argument"]
    run = rig.doit(code=2)
    assert "comfyui-gpu1 died while it started" in run.output
    assert pids(rig)["comfyui-gpu0"] == serving, "the other was never touched"
    assert rig.healthy(1), "it is back on what it ran with before"


def test_a_run_that_was_killed_while_draining_leaves_no_mark_for_long(
    machine: MachineMaker, forge: Forge, tmp_path: Path
) -> None:
    node = forge.repository("wait", {"__init__.py": WAIT})
    rig = machine(custom_nodes=[{"url": node.url}])
    rig.doit()
    submit(rig, tmp_path / "done")
    rig.spec["instances"]["args"] = NEW
    with rig.going() as roll:
        until(rig.layout.draining(0).exists, 60, "the mark")
        roll.kill()
    (tmp_path / "done").touch()
    rig.spec["instances"]["args"] = []
    rig.doit()
    assert not rig.layout.draining(0).exists()
    assert rig.doit().executed == set()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_however_a_run_ends_while_it_drains_workers_are_not_kept_away(
    machine: MachineMaker, forge: Forge, tmp_path: Path, number: int
) -> None:
    node = forge.repository("wait", {"__init__.py": WAIT})
    rig = machine(custom_nodes=[{"url": node.url}])
    rig.doit()
    submit(rig, tmp_path / "done")
    rig.spec["instances"]["args"] = NEW
    with rig.going() as roll:
        until(rig.layout.draining(0).exists, 60, "the mark")
        roll.send_signal(number)
        roll.wait(60)
    until(lambda: not rig.layout.draining(0).exists(), 30, "the mark to go")
    assert rig.healthy()
    (tmp_path / "done").touch()


def test_before_one_that_serves_is_taken_down_the_others_are_seen_healthy(
    machine: MachineMaker, forge: Forge
) -> None:
    node = forge.node("alpha")
    node.git("tag", "v1")
    rig = machine(
        custom_nodes=[{"url": node.url, "ref": "v1"}], instances={"gpus": 2}, health={"timeout": 6}
    )
    rig.doit()
    serving = pids(rig)["comfyui-gpu1"]
    hangs = "import os, time\nif 'COMFYUI_PORT' in os.environ:\n    time.sleep(1000)\n"
    node.commit({"prestartup_script.py": hangs}, tag="v2")
    rig.spec["custom_nodes"][0]["ref"] = "v2"
    first = pids(rig)["comfyui-gpu0"]
    with rig.going() as roll:
        until(lambda: pids(rig).get("comfyui-gpu0", first) != first, 60, "the first to be replaced")
        roll.kill()
    with watched(rig, 2) as seen:
        run = rig.doit(code=2)
    assert "comfyui-gpu0 isn't healthy" in run.output
    assert min(seen) == 1
    assert pids(rig)["comfyui-gpu1"] == serving
    assert rig.healthy(0)


def test_an_instance_that_leaves_ends_its_job_first(
    machine: MachineMaker, forge: Forge, tmp_path: Path
) -> None:
    node = forge.repository("wait", {"__init__.py": WAIT})
    rig = machine(custom_nodes=[{"url": node.url}], instances={"gpus": 2})
    rig.doit()
    done = tmp_path / "done"
    submit(rig, done, gpu=1)
    rig.spec["instances"]["gpus"] = 1
    with rig.going() as roll:
        until(rig.layout.draining(1).exists, 60, "the mark")
        assert rig.healthy(1)
        done.touch()
        assert roll.wait(60) == 0
    assert set(pids(rig)) == {"comfyui-gpu0"}


def test_doit_restart_restarts_those_it_names_and_nothing_else(machine: MachineMaker) -> None:
    rig = machine(instances={"gpus": 2})
    rig.doit()
    before = pids(rig)
    assert rig.doit("restart", "comfyui-gpu1").output == "comfyui-gpu1 is healthy\n"
    after = pids(rig)
    assert after["comfyui-gpu0"] == before["comfyui-gpu0"]
    assert after["comfyui-gpu1"] != before["comfyui-gpu1"]
    with watched(rig, 2) as seen:
        rig.doit("restart")
    assert min(seen) == 1
    assert not set(pids(rig).values()) & set(after.values())
    wrong = rig.doit("restart", "comfyui-gpu7", code=3)
    assert "no instance comfyui-gpu7; known: comfyui-gpu0, comfyui-gpu1" in (wrong.output)


def test_doit_restart_on_a_machine_that_was_never_made_says_so(machine: MachineMaker) -> None:
    rig = machine()
    assert "nothing to restart yet: run doit" in rig.doit("restart", code=1).output
    one = rig.doit("restart", "comfyui-gpu0", code=1).output
    assert "not started yet: comfyui-gpu0: run doit" in one
