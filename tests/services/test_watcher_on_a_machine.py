"""The watcher on a machine that is up: what it mends by itself, and what it leaves alone."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from comfy_machine.host.comfyui.symptoms import LONGEST_GAP
from comfy_machine.host.pm2 import apps, pm2
from comfy_machine.host.system import files
from tests.conftest import MachineMaker
from tests.contract.client import until
from tests.forge import Forge
from tests.rig import Rig, free_ports

NODE = """
class Doer:
    CATEGORY = "test"
    FUNCTION = "run"
    RETURN_TYPES = ()
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"code": ("STRING", {})}}

    def run(self, code):
        exec(code, {})
        return ()


NODE_CLASS_MAPPINGS = {"Doer": Doer}
"""
HOLDS_THE_GIL = "import re; re.match('(a+)+b', 'a' * 28)"
PATIENCE = 60.0
"""Seconds for what the watcher does; PM2 alone takes 10 to end one that is stopped."""


@pytest.fixture
def doer(machine: MachineMaker, forge: Forge) -> Callable[..., Rig]:
    """A machine with a node that does what a job says."""

    def make(**instances: Any) -> Rig:
        node = forge.repository("doer", {"__init__.py": NODE})
        return machine(custom_nodes=[{"url": node.url}], instances=instances)

    return make


def hasten(rig: Rig, **rules: float) -> None:
    """Have the watcher look more often, and lose patience sooner, than a person could ask for."""
    file = rig.layout.apps / "watcher.json"
    settings = json.loads(file.read_text())
    settings["every"] = 0.2
    settings["rules"] |= rules
    file.write_text(json.dumps(settings))
    before = watcher_of(rig)
    assert pm2.restart(rig.layout, "watcher", before.pid, "a test")
    ready = file.with_suffix(".ready.json")
    until(
        lambda: (
            (now := rig.watcher())
            and now != before
            and files.read_receipt(ready).get("pid") == now.pid
        ),
        PATIENCE,
        "the watcher",
    )


def do(rig: Rig, code: str) -> str:
    """Queue a job that does it; the same twice would come from the cache."""
    inputs = {"code": f"{code}\n# {time.time_ns()}"}
    return rig.client().submit({"1": {"class_type": "Doer", "inputs": inputs}})


def watcher_of(rig: Rig) -> apps.App:
    found = rig.watcher()
    assert found
    return found


def pid(rig: Rig, gpu: int = 0) -> int | None:
    app = rig.running().get(f"comfyui-gpu{gpu}")
    return app.pid if app else None


def until_restarted(rig: Rig, before: int | None) -> None:
    until(lambda: pid(rig) not in (None, before) and rig.healthy(), PATIENCE, "the restart")


def told(rig: Rig) -> dict[str, Any]:
    return files.read_receipt(rig.layout.watched(0))


def restarts(rig: Rig) -> int:
    return int(pm2.apps(rig.layout)["comfyui-gpu0"]["pm2_env"]["restart_time"])


def test_a_stopped_instance_is_restarted_and_the_other_is_not(machine: MachineMaker) -> None:
    rig = machine(instances={"gpus": 2}, health={"server": True, "port": free_ports(1)})
    rig.doit()
    settings = json.loads((rig.layout.apps / "watcher.json").read_text())
    assert settings["rules"]["hung"] == 30
    assert settings["every"] < LONGEST_GAP / 2, "looks that follow each other"
    hasten(rig, hung=3)
    first, other = pid(rig), pid(rig, 1)
    assert first
    server = rig.server()
    assert server
    begin = time.monotonic()
    os.kill(first, signal.SIGSTOP)
    os.kill(server.pid, signal.SIGSTOP)
    until_restarted(rig, first)
    assert time.monotonic() - begin > 3, "it waited as long as it says"
    until(lambda: "restarted" in told(rig), PATIENCE, "the note")
    assert told(rig)["restarted"] == "no answer for 3 s"
    assert restarts(rig) == 1
    assert pid(rig, 1) == other
    assert re.search(r"restarted \d{4}-.*: no answer for 3 s", status(rig))
    assert f"comfyui-gpu0 (pid {first}) was restarted: no answer for 3 s" in log(rig)
    until(lambda: (now := rig.server()) and now.pid != server.pid, PATIENCE, "the health server")
    assert f"health-server (pid {server.pid}) was restarted: it gave no good answer" in log(rig)
    noted = told(rig)["at"]
    until(lambda: time.time() > noted + 1, PATIENCE, "a process that can't be the one noted")
    rig.spec["instances"]["args"] = ["--preview-method", "none"]
    rig.doit()
    assert "no answer" not in status(rig), "of a process that is gone"
    rig.pm2("stop", "watcher")
    until(rig.watcher, PATIENCE, "the health server to start the watcher")
    stopped = watcher_of(rig)
    os.kill(stopped.pid, signal.SIGSTOP)
    until(lambda: (now := rig.watcher()) and now.pid != stopped.pid, 2 * PATIENCE, "its restart")
    guard = rig.layout.log("health-server")
    assert "the watcher doesn't run: it was restarted" in guard.read_text()
    hangs = f"the watcher (pid {stopped.pid}) hangs: no sign of it for 30 s"
    until(lambda: hangs in guard.read_text(), PATIENCE, "what the health server says of it")


def status(rig: Rig) -> str:
    return rig.doit("status", code=None, COLUMNS="200").output


def log(rig: Rig) -> str:
    return (rig.layout.logs / "watcher.log").read_text()


def test_what_is_wrong_is_only_said_with_restart_unhealthy_false(machine: MachineMaker) -> None:
    rig = machine(instances={"restart_unhealthy": False})
    rig.doit()
    hasten(rig, hung=1)
    first = pid(rig)
    assert first
    os.kill(first, signal.SIGSTOP)
    until(lambda: told(rig), PATIENCE, "the finding")
    assert told(rig).items() >= {
        "pid": first, "code": "Hanging", "reason": "no answer for 1 s",
    }.items()  # fmt: skip
    assert abs(time.time() - told(rig)["since"]) < 30
    assert "no answer for 1 s" in status(rig)
    os.kill(first, signal.SIGCONT)
    until(lambda: not rig.layout.watched(0).exists(), PATIENCE, "the end of the finding")
    assert (pid(rig), restarts(rig)) == (first, 0)


def test_a_job_that_is_over_its_time_is_ended_and_one_below_is_not(
    doer: Callable[..., Rig],
) -> None:
    rig = doer(job_timeout=4)
    rig.doit()
    hasten(rig, hung=1)
    first = pid(rig)
    short = do(rig, "import time; time.sleep(2)")
    rig.client().wait(short, 30)
    busy = do(rig, "import time; time.sleep(2)")
    rig.client().wait(busy, 30)
    assert pid(rig) == first
    stuck = do(rig, "import sys; sys.exit(7)")
    until_restarted(rig, first)
    assert told(rig)["restarted"] == f"job {stuck} has run for 4 s (instances.job_timeout)"
    rig.client().wait(do(rig, "pass"), 30)


def test_jobs_behind_a_worker_that_died_between_two_are_found_sooner(
    doer: Callable[..., Rig],
) -> None:
    rig = doer()
    rig.doit()
    hasten(rig, hung=1)
    first = pid(rig)
    # As after an error of CUDA: the thread ends while it clears up, and no job is running.
    dies = """
import execution
finish = execution.PromptQueue.finish
def last(*arguments, **more):
    finish(*arguments, **more)
    raise SystemExit
execution.PromptQueue.finish = last
"""
    do(rig, dies)
    until(lambda: rig.client().get("/queue")["queue_running"] == [], PATIENCE, "the job's end")
    do(rig, "pass")
    until_restarted(rig, first)
    assert told(rig)["restarted"] == (
        "its worker thread is dead: jobs wait, and none has started for 1 s"
    )


def test_one_that_computes_without_answering_is_let_be(doer: Callable[..., Rig]) -> None:
    rig = doer()
    rig.doit()
    hasten(rig, hung=1)
    first = pid(rig)
    job = do(rig, HOLDS_THE_GIL)
    until(lambda: not rig.healthy(), PATIENCE, "the silence")
    begin = time.monotonic()
    until(rig.healthy, PATIENCE, "the answer")
    assert time.monotonic() - begin > 1, "or this test says nothing"
    rig.client().wait(job, 30)
    assert (pid(rig), told(rig)) == (first, {})


def test_one_that_a_run_drains_is_left_alone_as_long_as_the_run_is_on(
    machine: MachineMaker,
) -> None:
    rig = machine()
    rig.doit()
    hasten(rig, hung=1)
    first = pid(rig)
    assert first
    with a_run_that_is_on(rig):
        # Without a run that is on, the watcher takes the mark away.
        rig.layout.draining(0).touch()
        os.kill(first, signal.SIGSTOP)
        watching = psutil.Process(watcher_of(rig).pid)
        looked = watching.cpu_times().user + 0.03
        until(lambda: watching.cpu_times().user > looked, PATIENCE, "many looks")
        assert (pid(rig), told(rig), restarts(rig)) == (first, {}, 0)
    until_restarted(rig, first)


RUNS = """
import sys
from pathlib import Path
from comfy_machine.host.system.run_lock import RunLock
RunLock(Path(sys.argv[1])).take("a test")
print("on", flush=True)
input()
"""


@contextmanager
def a_run_that_is_on(rig: Rig) -> Iterator[None]:
    with subprocess.Popen(
        [sys.executable, "-c", RUNS, str(rig.workspace)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == b"on\n"
        yield
        run.communicate(b"\n")


def test_one_that_eats_memory_is_restarted(doer: Callable[..., Rig]) -> None:
    rig = doer(limits={"memory": "300M"})
    rig.doit()
    hasten(rig)
    first = pid(rig)
    rig.client().wait(do(rig, "import builtins; builtins.kept = b'x' * (100 << 20)"), 30)
    seen = log(rig)
    do(rig, "import builtins; builtins.more = b'x' * (300 << 20)")
    until_restarted(rig, first)
    assert told(rig)["restarted"] == "more than 300M of memory (instances.limits.memory)"
    assert "memory" not in seen


def test_a_watcher_that_is_killed_comes_back_and_one_that_is_asked_ends_at_once(
    machine: MachineMaker,
) -> None:
    rig = machine()
    rig.doit()
    first = watcher_of(rig)
    os.kill(first.pid, signal.SIGKILL)
    until(lambda: rig.watcher() not in (None, first), PATIENCE, "the watcher")
    again = watcher_of(rig)
    assert rig.doit().executed == set()
    file = rig.layout.apps / "watcher.ready.json"
    until(lambda: files.read_receipt(file).get("pid") == again.pid, PATIENCE, "its start")
    begin = time.monotonic()
    process = psutil.Process(again.pid)
    process.terminate()
    process.wait(PATIENCE)
    assert time.monotonic() - begin < 1


def test_a_missing_folder_and_a_missing_pm2_do_not_end_it(machine: MachineMaker) -> None:
    rig = machine()
    rig.doit()
    hasten(rig, hung=0.5)
    watching, daemon, instance = watcher_of(rig), pm2.daemon(rig.layout), pid(rig)
    assert daemon
    assert instance
    folder = rig.layout.instance(0)
    folder.rename(folder.with_name("away"))
    os.kill(daemon, signal.SIGKILL)
    os.kill(instance, signal.SIGSTOP)
    looked = psutil.Process(watching.pid).cpu_times().user + 0.03
    until(lambda: psutil.Process(watching.pid).cpu_times().user > looked, PATIENCE, "many looks")
    assert not folder.exists()
    folder.with_name("away").rename(folder)
    until(lambda: told(rig).get("reason") == "no answer for 0.5 s", PATIENCE, "the finding")
    os.kill(instance, signal.SIGCONT)
    until(lambda: told(rig) == {}, PATIENCE, "the end of the finding")
    assert watcher_of(rig).pid == watching.pid
    rig.doit()
    assert rig.healthy()
    assert watcher_of(rig).pid != watching.pid


def test_down_ends_it_too_and_a_machine_without_instances_has_none(machine: MachineMaker) -> None:
    rig = machine()
    rig.doit()
    assert rig.watcher()
    rig.doit(ENABLE_COMFYUI="false")
    assert rig.watcher() is None
    rig.doit()
    rig.doit("down")
    assert rig.watcher() is None


def test_settings_changed_by_hand_are_put_right(machine: MachineMaker) -> None:
    rig = machine()
    rig.doit()
    (rig.layout.apps / "watcher.json").write_text("{}")
    assert rig.doit().executed == {"watcher"}
    rig.spec["instances"]["job_timeout"] = 5
    assert rig.doit().executed == {"watcher"}
    assert rig.doit().executed == set()


TALKS = """
import sys, time
for number in range(3000):
    stream = sys.stderr if number % 2 else sys.stdout
    print("line", number, file=stream, flush=True)
    # PM2 drops what it has queued when it reopens a log: on a busy machine that may be a line.
    time.sleep(0.004)
print("the end", flush=True)
time.sleep(600)
"""


def test_logs_are_rotated_and_no_line_is_lost(machine: MachineMaker) -> None:
    rig = machine(instances={"logs": {"max_size": "4K", "keep": 50}})
    rig.doit()
    hasten(rig)
    rig.spec["workers"] = [{"name": "talker", "command": [sys.executable, "-c", TALKS]}]
    rig.doit()
    talked = rig.layout.logs / "talker-gpu0.log"

    def said() -> list[str]:
        logs = sorted(
            rig.layout.logs.glob(f"{talked.name}.*"), key=lambda path: -int(path.suffix[1:])
        )
        return [
            line
            for path in [*logs, talked]
            if path.exists()
            for line in path.read_text().splitlines()
        ]

    until(lambda: "the end" in said(), PATIENCE, "the last line")
    assert said() == [*(f"line {number}" for number in range(3000)), "the end"]
    assert list(rig.layout.logs.glob(f"{talked.name}.*")), "how many depends on the watcher's turns"
    assert "talker-gpu0.log was rotated" in log(rig)
    assert not list(rig.layout.logs.glob("health.*.log.*")), "those of tasks are not touched"


CRASHES = """
import os, threading
if "COMFYUI_PORT" in os.environ and os.environ.get("CRASHES"):
    threading.Timer(1.0, os._exit, [3]).start()
NODE_CLASS_MAPPINGS = {}
"""


def test_a_crash_loop_ends_within_a_minute_and_the_other_goes_on(
    machine: MachineMaker, forge: Forge, tmp_path: Path
) -> None:
    node = forge.repository("crashes", {"__init__.py": CRASHES})
    rig = machine(
        custom_nodes=[{"url": node.url}],
        instances={"gpus": 2, "overrides": {1: {"env": {"CRASHES": "1"}}}},
    )
    begin = time.monotonic()
    rig.doit(code=None)
    other = pid(rig)

    def ended() -> bool:
        assert rig.healthy(0)
        return bool(pm2.apps(rig.layout)["comfyui-gpu1"]["pm2_env"]["status"] == "errored")

    until(ended, 60 - (time.monotonic() - begin), "PM2 to give up")
    assert pid(rig) == other
    assert restarts(rig) == 0
