"""What is said of the programs of jobs."""

from __future__ import annotations

from comfy_machine.host.comfyui import job_apps
from comfy_machine.host.pm2 import apps
from comfy_machine.host.pm2.app_state import AppState
from comfy_machine.host.pm2.endings import Ending


def runs(name: str, *, supervised: bool = True) -> AppState:
    return AppState(apps.App(name, 7, "f", supervised, 0.0), is_known=True)


def test_each_is_told_of_in_a_sentence_with_its_name() -> None:
    killed = AppState(None, is_known=True, ending=Ending("killed", "it was killed by SIGKILL"))
    states = {
        apps.JOBS_SERVER: runs(apps.JOBS_SERVER),
        apps.SCHEDULER: killed,
        apps.GATEWAY: runs(apps.GATEWAY, supervised=False),
    }
    server, scheduler, gateway = job_apps.look(states, None)
    assert server.fault == ""
    assert scheduler.fault == "comfyui-scheduler doesn't run: it was killed by SIGKILL"
    assert gateway.fault.startswith("comfyui-gateway: PM2 doesn't supervise it")
    silent = job_apps.look(states, 4222)
    assert silent[0].fault == "comfyui-jobs (pid 7) doesn't answer at port 4222"
    assert [each.fault for each in silent[1:]] == [scheduler.fault, gateway.fault]
    assert job_apps.look({apps.GATEWAY: AppState(None)}, 4222)[0].fault == (
        "comfyui-gateway doesn't run: not started"
    )


def test_every_program_has_its_task() -> None:
    assert set(job_apps.TASKS) == set(apps.JOBS)
