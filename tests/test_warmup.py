"""The warm-up job at the gate: what it holds back, and what it lets through."""

from __future__ import annotations

import json
import os
import signal

from comfy_machine.host.comfyui import own_jobs, warmup
from comfy_machine.host.system import files
from tests.conftest import MachineMaker
from tests.contract.client import until


def test_an_instance_is_healthy_once_its_warm_up_job_has_come_through(
    machine: MachineMaker,
) -> None:
    rig = machine(instances={"gpus": 2}, health={"warmup": "warm.json", "timeout": 60}, workers=[])
    file = rig.folder / "warm.json"
    file.write_text(json.dumps({"1": {"class_type": "NoSuchNode", "inputs": {}}}))
    run = rig.doit(code=2)
    assert run.failed == {"health:gpu0", "health:gpu1"}
    said = f"comfyui-gpu0 failed its warm-up job {file} (health.warmup): refused the job: "
    assert said in run.output
    assert "NoSuchNode" in run.output
    said = rig.doit("probe", "comfyui-gpu1", code=1).output
    assert said.startswith("unhealthy: its warm-up job failed: refused the job: ")
    assert said.count("\n") == 1
    assert rig.doit("probe", "--live").output == "live: PM2 runs\n"
    assert rig.doit("probe", "--ready", code=1).output == (
        "unhealthy: no instance takes jobs; see /health/comfyui\n"
    )
    assert "(and 1 more)" in rig.doit("probe", code=1).output

    file.write_text(json.dumps(own_jobs.smoke("PreviewImage")))
    run = rig.doit()
    assert {"health:gpu0", "health:gpu1"} <= run.executed
    assert "instances:start" not in run.executed, "what runs is warmed, not restarted"
    assert rig.doit().executed == set()
    assert rig.doit("probe").output == "healthy\n"
    assert not list(rig.layout.outputs(0).iterdir())

    app = rig.running()["comfyui-gpu0"]
    os.kill(app.pid, signal.SIGKILL)
    until(lambda: rig.running().get("comfyui-gpu0", app).pid != app.pid, 30, "PM2")
    until(rig.healthy, 30, "an answer")
    shown = json.loads(rig.doit("status", "--json").output)["instances"]
    assert (shown["0"]["health"], shown["0"]["reason"]) == ("starting", warmup.NOT_YET)
    assert (shown["1"]["health"], shown["1"]["reason"]) == ("healthy", "")
    assert rig.doit("probe", "--ready").output == "healthy\n"
    said = rig.doit("probe").output
    assert said == f"degraded: comfyui-gpu0 is starting: {warmup.NOT_YET}; wait\n"
    # A plan says what a run would do, and does not do it.
    files.remove(rig.layout.warm(1))
    assert rig.doit("plan").planned == {"health:gpu0", "health:gpu1"}
    assert rig.doit().executed == {"health:gpu0", "health:gpu1"}
    assert files.read_receipt(rig.layout.warm(0))["pid"] == rig.running()["comfyui-gpu0"].pid
    assert rig.doit("probe", "--wait", "1").output == "healthy\n"
