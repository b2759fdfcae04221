"""doit cordon and uncordon: one GPU out of service, and back, while the others go on."""

from __future__ import annotations

import json
import sys
from typing import Any

import requests

from tests.conftest import MachineMaker
from tests.contract.client import until
from tests.instances.test_roll import pids
from tests.rig import free_ports

WAITS = [sys.executable, "-c", "import time; time.sleep(600)"]


def told(port: int) -> dict[str, Any] | None:
    """What the health server says once it knows of the cordon."""
    answer = requests.get(f"http://127.0.0.1:{port}/health/comfyui", timeout=30)
    found: dict[str, Any] = answer.json()
    return found if [*found["instances"]] == ["0"] and answer.status_code == 200 else None


def test_a_gpu_goes_out_of_service_and_comes_back_and_the_others_go_on(
    machine: MachineMaker,
) -> None:
    port = free_ports(1)
    rig = machine(
        instances={"gpus": 2},
        workers=[
            {"name": "fetch", "command": [*WAITS]},
            {"name": "count", "command": [*WAITS], "per": "machine"},
        ],
        health={"server": True, "port": port},
    )
    rig.doit()
    before = pids(rig)
    assert "no instance 7; known: comfyui-gpu0" in rig.doit("cordon", "7", code=3).output
    said = rig.doit("cordon", "--reason", "its fan", "gpu1").output
    assert "gpu1 is cordoned, comfyui-gpu1 and its workers are stopped; doit uncordon 1" in said
    left = {name: pid for name, pid in before.items() if not name.endswith("-gpu1")}
    assert pids(rig) == left
    shown = json.loads(rig.doit("status", "--json").output)
    assert [*shown["instances"]] == ["0"]
    assert shown["cordoned"]["1"]["reason"] == "its fan"
    table = rig.doit("status").output
    (row,) = (line for line in table.splitlines() if line.startswith("comfyui-gpu1 "))
    assert "cordoned  since" in row
    assert row.endswith("by hand: its fan; doit uncordon 1")
    assert "changed since the last run" not in table, "nobody edited machine.yaml"
    shown = until(lambda: told(port), 30, "health") or {}
    assert (shown["status"], shown["code"]) == ("degraded", "GpuCordoned")
    assert "by hand: its fan" in shown["reason"]

    again = rig.doit()
    assert not [name for name in again.executed if name.startswith(("instances:start", "pm2:"))]
    assert pids(rig) == left, "its share of the memory stays reserved"
    assert rig.doit().executed == set()

    assert "gpu1 is in service again: doit starts its instance" in rig.doit("uncordon", "1").output
    rig.doit()
    assert pids(rig).keys() == before.keys()
    assert {name: pids(rig)[name] for name in left} == left

    now = pids(rig)
    restarted = rig.doit("restart", "1", "count").output
    assert restarted == "comfyui-gpu1 is healthy\nrestarted: count-machine\n"
    changed = {name for name, pid in pids(rig).items() if pid != now[name]}
    assert changed == {"comfyui-gpu1", "fetch-gpu1", "count-machine"}
    assert rig.doit("uncordon").output == "no GPU is cordoned\n"
