"""doit status: what it says of a machine in every state, and that it says so at once."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from typing import Any

import psutil
import pytest

from comfy_machine.commands.shared import health_report
from comfy_machine.host.comfyui import condition, judge
from comfy_machine.host.comfyui.condition import Condition
from comfy_machine.host.comfyui.machine_state import InstanceState
from comfy_machine.host.pm2 import pm2
from comfy_machine.host.system import files
from comfy_machine.host.system.run_lock import RunLock
from comfy_machine.services.health.model.answers import instance_condition
from tests.conftest import MachineMaker
from tests.contract.client import until
from tests.forge import Forge
from tests.rig import Rig
from tests.services import moments as m

HUNGRY = "import os, time\nos.fork()\nblock = bytearray(b'x') * 90_000_000\ntime.sleep(1000)\n"
"""A worker that takes 90 MB, and its child that takes as much."""


def document(rig: Rig) -> dict[str, Any]:
    shown: dict[str, Any] = json.loads(rig.doit("status", "--json", code=None).output)
    return shown


def row(rig: Rig, gpu: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = document(rig)["instances"][str(gpu)]
    return found


def keys(value: object) -> list[str]:
    """Every key of a JSON document, however deep."""
    if isinstance(value, dict):
        return [*value, *(key for each in value.values() for key in keys(each))]
    return [key for each in value for key in keys(each)] if isinstance(value, list) else []


def test_a_healthy_machine_with_its_memory_uptime_restarts_and_workers(
    machine: MachineMaker,
) -> None:
    rig = machine(workers=[{"name": "hungry", "command": [sys.executable, "-c", HUNGRY]}])
    rig.doit()
    app = rig.running()["comfyui-gpu0"]
    until(lambda: document(rig)["workers"]["hungry-gpu0"]["memory"] > 150e6, 20, "its child's too")
    shown = document(rig)
    found = shown["instances"]["0"]
    resident = psutil.Process(app.pid).memory_info().rss
    assert 0.5 * resident < found["memory"] < 2 * resident
    assert abs(found["uptime"] - (time.time() - app.started)) < 20
    assert (found["restarts"], found["health"], found["note"]) == (0, "healthy", "")

    worker = shown["workers"]["hungry-gpu0"]
    assert worker["process"] == rig.running()["hungry-gpu0"].pid
    assert (worker["gpu"], worker["running"], worker["restarts"]) == (0, True, 0)
    assert keys(shown).count("pid") == 1, "programs look for it"
    assert keys(shown).count("instances") == 1
    assert re.search(r"^hungry-gpu0 .*running$", rig.doit("status").output, re.M)

    os.kill(app.pid, signal.SIGKILL)
    until(lambda: row(rig)["restarts"] == 1 and rig.healthy(), 30, "PM2 to start it again")
    assert row(rig)["uptime"] < found["uptime"] + 20

    lock = RunLock(rig.workspace)
    lock.take("a roll")
    files.write_text(rig.layout.draining(0), "")
    assert row(rig)["health"] == "draining"
    rig.layout.draining(0).unlink()
    lock.give_back()

    pid = rig.running()["comfyui-gpu0"].pid
    watch = {"pid": pid, "reason": "a job runs for 3700 s", "since": 1.0}
    for code, expected in (({"code": "JobTimeout"}, "JobTimeout"), ({}, "Unspecified")):
        files.write_receipt(rig.layout.watched(0), watch | code)
        assert (row(rig)["health"], row(rig)["reason"]) == ("unhealthy", watch["reason"])
        assert row(rig)["code"] == expected, "an older watcher notes no code"
    files.write_receipt(rig.layout.watched(0), watch | {"pid": pid + 1})
    assert row(rig)["health"] == "healthy", "it was said of another process"
    files.write_receipt(rig.layout.watched(0), {"restarted": "its worker died", "at": time.time()})
    assert row(rig)["health"] == "healthy"
    assert re.fullmatch(r"restarted 20\S+ \S+: its worker died", row(rig)["note"])
    assert "its worker died" in rig.doit("status").output


def test_without_pm2_the_instances_are_still_seen(machine: MachineMaker) -> None:
    rig = machine()
    rig.doit()
    daemon = pm2.daemon(rig.layout)
    assert daemon is not None
    os.kill(daemon, signal.SIGSTOP)
    try:
        found = row(rig)
        assert (found["health"], found["restarts"], found["note"]) == ("healthy", None, "")
        assert re.search(r"^comfyui-gpu0 .* –  ", rig.doit("status").output, re.M)
    finally:
        os.kill(daemon, signal.SIGKILL)
    until(lambda: pm2.daemon(rig.layout) is None, 10, "the daemon's end")
    found = row(rig)
    assert (found["health"], found["code"], found["restarts"]) == (
        "degraded", "NotSupervised", None,
    )  # fmt: skip
    assert (found["reason"], found["note"]) == ("PM2 doesn't supervise it: run doit", "")
    rig.doit("status", code=0)


def test_one_that_loads_is_starting_and_one_that_hangs_is_not_healthy(
    machine: MachineMaker, forge: Forge
) -> None:
    text = (
        "import os, time\nwhile os.path.exists(os.environ.get('HANG', '')):\n    time.sleep(0.1)\n"
    )
    node = forge.node("slow", {"prestartup_script.py": text})
    hang = forge.folder / "hang"
    rig = machine(custom_nodes=[{"url": node.url}], health={"timeout": 60})
    rig.doit("build")
    hang.touch()
    rig.spec["instances"]["env"] = {"HANG": "${HANG}"}
    rig.doit("validation", HANG="")
    rig.doit("instances", HANG=str(hang))
    found = row(rig)
    assert (found["health"], found["queue"]) == ("starting", None)
    assert found["reason"] == f"nothing answers on http://127.0.0.1:{rig.port()}"
    rig.spec["health"]["timeout"] = 1
    until(lambda: row(rig)["health"] == "unhealthy", 20, "the end of patience")
    hang.unlink()
    until(lambda: row(rig)["health"] == "healthy", 30, "the end of its start")
    os.kill(found["pid"], signal.SIGSTOP)
    try:
        found = row(rig)
        assert found["health"] == "unhealthy"
        assert "no answer from" in found["reason"]
    finally:
        os.kill(found["pid"], signal.SIGCONT)


def test_one_that_dies_again_and_again_is_a_crash_loop_with_the_line_to_blame(
    machine: MachineMaker,
) -> None:
    worker = "import time; time.sleep(2); import no_such_module"
    rig = machine(
        instances={"gpus": 2, "overrides": {1: {"args": ["no-such-argument"]}}},
        workers=[{"name": "w", "command": [sys.executable, "-c", worker]}],
    )
    rig.doit(code=2)

    def given_up(name: str) -> bool:
        return bool(pm2.apps(rig.layout)[name]["pm2_env"]["status"] == "errored")

    until(lambda: given_up("comfyui-gpu1"), 30, "PM2")
    shown = document(rig)
    found = shown["instances"]["1"]
    assert (found["health"], found["pid"], found["uptime"]) == ("crash loop", None, None)
    assert found["restarts"] >= 2
    how, file, line, said = found["reason"].split(":", 3)
    words = rig.layout.log("comfyui-gpu1").read_text().splitlines()
    assert (how, file) == ("it exited with code 2", " comfyui-gpu1.log")
    assert words[int(line) - 1] == said.strip()
    assert "error: unrecognized arguments: no-such-argument" in said
    said = rig.doit("status").output
    assert f"machine: degraded: comfyui-gpu1 is in a crash loop: {found['reason']}" in said

    # Between two of its lives it doesn't run either.
    until(lambda: given_up("w-gpu0"), 60, "PM2 to give up")
    found = document(rig)["workers"]["w-gpu0"]
    assert not found["running"]
    reason = found["reason"]
    said = r"w-gpu0\.log:\d+: ModuleNotFoundError: No module named 'no_such_module'"
    assert re.fullmatch(rf"it exited with code 1: {said}", reason)
    assert "w-gpu0" in rig.doit("status").output


def test_a_stranger_on_the_port_is_not_the_instances_queue(machine: MachineMaker) -> None:
    rig = machine()
    rig.doit()
    other = machine("other", instances={"port_start": rig.port()})
    found = row(other)
    assert (found["health"], found["pid"], found["queue"]) == ("down", None, None)


ORPHAN = judge.not_supervised(m.state(m.app(supervised=False)))
CANARY = Condition("Functional", "unhealthy", "CanaryFailed", "no image")
DOWN = Condition("Running", "down", "Exited", "it ended and wrote no output")


@pytest.mark.parametrize(
    ("own", "told", "pid", "ready", "note"),
    [
        ([], [], 4100, "", ""),
        ([], [CANARY], 4100, "no image", ""),
        ([], [CANARY], 4101, "", ""),
        ([ORPHAN], [CANARY, ORPHAN], 4100, "no image", "PM2 doesn't supervise it: run doit"),
        ([ORPHAN], [ORPHAN], 4100, "PM2 doesn't supervise it: run doit", ""),
        ([CANARY], [], 4100, "no image", ""),
        ([CANARY], [DOWN], 4100, "it ended and wrote no output", ""),
    ],
)
def test_status_says_of_a_process_what_the_health_server_says_unless_it_has_yet_to_notice(
    own: list[Condition], told: list[Condition], pid: int, ready: str, note: str
) -> None:
    state = InstanceState("comfyui-gpu0", 0, 8188, m.state(m.app()), 0, own, "")
    every = [condition.ready(told), *told]
    answer = {
        "layers": {"running": {"pid": pid}},
        "conditions": [instance_condition(each).model_dump(mode="json") for each in every],
    }
    found = health_report._completed(state, answer) or state
    assert (found.ready.message, found.note) == (ready, note)
    assert health_report._completed(state, {"layers": {"running": {"pid": pid}}}) is None, (
        "an older health server has no conditions"
    )
