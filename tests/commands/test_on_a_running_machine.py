"""Commands on a machine that is up."""

from __future__ import annotations

import json
import re
from pathlib import Path

import psutil

from comfy_machine.host.pm2 import apps, pm2
from tests.conftest import MachineMaker
from tests.contract.client import until
from tests.rig import Rig

SLEEPER = ["sleep", "1000"]


def rows(rig: Rig, code: int) -> dict[str, dict[str, object]]:
    shown: dict[str, dict[str, object]] = json.loads(
        rig.doit("status", "--json", code=code).output
    )["instances"]
    return shown


def test_status_smoke_and_logs_tell_what_is_true_then_and_when_one_is_down(
    machine: MachineMaker,
) -> None:
    rig = machine(instances={"gpus": 2})
    rig.doit()
    running = rig.running()

    shown = rows(rig, 0)
    for gpu in (0, 1):
        row = shown[str(gpu)]
        assert row["health"] == "healthy"
        assert row["pid"] == running[f"comfyui-gpu{gpu}"].pid
        assert (row["queue"], row["restarts"], row["reason"]) == (0, 0, "")
    table = rig.doit("status").output
    assert re.search(
        rf"^comfyui-gpu1  1 +[\d.]+ MB +{rig.port(1)} +{running['comfyui-gpu1'].pid} +\d+s"
        r" +0 +0 +healthy$",
        table,
        re.M,
    )
    assert "why not" not in table

    said = rig.doit("smoke").output
    named = [
        Path(path) for line in said.splitlines() for path in line.partition(": ")[2].split(", ")
    ]
    assert len(named) == 2
    for gpu, file in enumerate(named):
        assert file.is_relative_to(rig.layout.outputs(gpu))
        assert file.read_bytes().startswith(b"\x89PNG")
    assert len(set(rig.layout.outputs(0).rglob("*.png"))) == 1
    rig.doit("smoke")
    assert len(set(rig.layout.outputs(0).rglob("*.png"))) == 2, "not from the cache"

    logs = rig.doit("logs").output
    for gpu in (0, 1):
        assert f"==> {rig.layout.log(f'comfyui-gpu{gpu}')}" in logs

    pm2.delete(rig.layout, {"comfyui-gpu1"}, "removed")
    shown = rows(rig, 0)
    assert shown["0"]["health"] == "healthy"
    assert (shown["1"]["health"], shown["1"]["pid"]) == ("down", None)
    said = rig.doit("smoke", code=1).output
    assert "✓ comfyui-gpu0: /" in said
    assert "✗ comfyui-gpu1: it doesn't run: run doit" in said


def test_down_leaves_nothing_and_up_starts_it_again(machine: MachineMaker) -> None:
    rig = machine(workers=[{"name": "worker", "command": SLEEPER}])
    rig.doit()
    daemon = pm2.daemon(rig.layout)
    assert daemon is not None
    running = rig.running()
    assert set(running) == {"comfyui-gpu0", "worker-gpu0"}
    children = psutil.Process(daemon).children(recursive=True)
    assert {app.pid for app in running.values()} <= {child.pid for child in children}

    assert rig.doit("down").output == "2 stopped\n"
    assert apps.running(rig.workspace, None) == []
    assert pm2.daemon(rig.layout) is None
    assert not any(process.is_running() for process in children)
    until(lambda: not psutil.pid_exists(daemon), 10, "the daemon's end")
    assert "Stopped server" in rig.layout.log("comfyui-gpu0").read_text(), "asked, not killed"
    assert rig.doit("down").output == "nothing was running\n"
    assert rows(rig, 1)["0"]["pid"] is None

    executed = rig.doit().executed
    assert {"instances:start", "health:gpu0", "workers:worker-gpu0"} <= executed
    assert not {"source", "environment", "generation:assemble", "validation"} & executed


def test_down_ends_what_a_killed_daemon_left_behind(machine: MachineMaker) -> None:
    rig = machine()
    rig.doit()
    daemon = pm2.daemon(rig.layout)
    assert daemon is not None
    psutil.Process(daemon).kill()
    until(lambda: pm2.daemon(rig.layout) is None, 10, "the daemon's end")
    assert rig.running()["comfyui-gpu0"].supervised is False
    assert rig.doit("down").output == "1 stopped\n"
    assert rig.running() == {}
