"""Limits: refused where they can't be, and seen in the processes where they can."""

from __future__ import annotations

import shutil

import psutil
import pytest

from comfy_machine.host.pm2 import apps
from comfy_machine.host.system import usage
from comfy_machine.limits import SYS_NICE, Capacity, excess, has_capability
from comfy_machine.spec import Limits
from comfy_machine.spec.sizes import shown
from tests.conftest import MachineMaker
from tests.rig import DOIT

HAS = Capacity(memory=64 << 30, nice=0, open_files=4096)
SET_PRIVILEGES = shutil.which("setpriv")


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({}, None),
        ({"memory": "64G", "nice": 0, "open_files": 4096}, None),
        ({"nice": 19}, None),
        (
            {"memory": "65G"},
            "instances.limits.memory: 65G is more than this machine has (64G): lower it",
        ),
        (
            {"nice": -1},
            "instances.limits.nice: -1 needs root (CAP_SYS_NICE): set 0 or more",
        ),
        (
            {"open_files": 4097},
            "instances.limits.open_files: 4097 is above the hard limit: "
            "set 4096 or less, or raise the hard limit (ulimit -Hn)",
        ),
    ],
)
def test_a_limit_that_cannot_be_is_refused_with_what_can(
    limits: dict[str, object], said: str | None
) -> None:
    assert excess(Limits.model_validate(limits), HAS) == said


def test_more_memory_than_there_is_stops_the_run_before_anything_starts(
    machine: MachineMaker,
) -> None:
    rig = machine(instances={"limits": {"memory": "900T"}})
    run = rig.doit(code=2)
    assert run.failed == {"limits"}
    has = shown(usage.machine_memory() >> 20 << 20)
    assert f"memory: 900T is more than this machine has ({has}): lower it" in run.output
    assert rig.running() == {}
    rig.doit("build")


@pytest.mark.skipif(SET_PRIVILEGES is None, reason="needs setpriv")
def test_a_negative_nice_without_the_right_to_it_is_refused(machine: MachineMaker) -> None:
    rig = machine(instances={"limits": {"nice": -5}})
    if has_capability(SYS_NICE):
        rig.program = (str(SET_PRIVILEGES), "--bounding-set=-sys_nice", str(DOIT))
    run = rig.doit(code=2)
    assert run.failed == {"limits"}
    assert "nice: -5 needs root (CAP_SYS_NICE)" in run.output


def test_caps_that_are_too_much_together_are_warned_of(machine: MachineMaker) -> None:
    half = (usage.machine_memory() >> 30) // 2 + 1
    rig = machine(instances={"gpus": 2, "limits": {"memory": f"{half}G"}})
    said = rig.doit().output
    assert f"memory: {half}G for each of 2 instances is more than this machine has" in said


def test_limits_are_seen_in_the_process_and_a_change_restarts_it(machine: MachineMaker) -> None:
    rig = machine(instances={"limits": {"nice": 5, "open_files": 1000}})
    rig.doit()
    first = psutil.Process(rig.running()["comfyui-gpu0"].pid)
    assert first.nice() == 5
    assert first.rlimit(psutil.RLIMIT_NOFILE)[0] == 1000
    assert "shim.py" not in " ".join(first.cmdline())
    rig.spec["instances"]["limits"]["open_files"] = 2000
    restarted = {"pm2:gpu0", "instances:start", "health:gpu0", "collection"}
    assert rig.doit().executed == restarted
    second = psutil.Process(rig.running()["comfyui-gpu0"].pid)
    assert second.rlimit(psutil.RLIMIT_NOFILE)[0] == 2000
    rig.spec["instances"]["limits"]["memory"] = "1G"
    assert rig.doit().executed == {*restarted, "watcher"}, "ComfyUI plans with it from its start"


def test_each_is_told_among_how_many_the_memory_is_shared(machine: MachineMaker) -> None:
    rig = machine(instances={"gpus": 2, "limits": {"memory": "1G"}})
    rig.doit()
    told = [rig.config(gpu)[0]["env"][apps.MEMORY] for gpu in range(2)]
    assert told == ["2 1073741824", "2 1073741824"]
    rig.spec["instances"] |= {"gpus": 1, "limits": {}}
    rig.doit()
    assert rig.config(0)[0]["env"][apps.MEMORY] == "1"
    rig.spec["instances"]["share_memory"] = False
    rig.doit()
    assert apps.MEMORY not in rig.config(0)[0]["env"]
