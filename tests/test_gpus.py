"""GPUs: the build needs none, `up` says so when there is none."""

from __future__ import annotations

import pytest

from tasks.host import gpu
from tests.conftest import MachineMaker

no_gpu = pytest.mark.skipif(gpu.count() > 0, reason="this machine has a GPU")


@no_gpu
@pytest.mark.parametrize("gpus", ["auto", 2])
def test_without_a_gpu_the_build_is_finished_and_up_says_what_to_do(
    machine: MachineMaker, gpus: object
) -> None:
    rig = machine(instances={"gpus": gpus, "cpu_only": False})
    run = rig.doit(code=2)
    assert "validation" in run.executed
    assert run.failed == {"gpus"}
    assert "in an image build use doit build" in run.output
    assert "instances.cpu_only: true" in run.output


@no_gpu
def test_the_build_needs_no_gpu(machine: MachineMaker) -> None:
    rig = machine(instances={"gpus": "auto", "cpu_only": False})
    rig.doit("build")


def test_cpu_only_can_come_from_the_environment(machine: MachineMaker) -> None:
    rig = machine(instances={"gpus": "auto", "cpu_only": False})
    rig.doit(COMFYUI_CPU_ONLY="true")
    assert rig.healthy()
