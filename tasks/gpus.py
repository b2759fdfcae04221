"""The GPUs that the instances need."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from tasks.engine.step import Task, step
from tasks.host import gpu
from tasks.host.failure import Failure
from tasks.spec import Instance, Machine


def tasks(machine: Machine, instances: Sequence[Instance]) -> Iterator[Task]:
    yield step(
        "gpus",
        "The GPUs that the instances need",
        check=partial(_missing, machine, instances),
        action=partial(_refuse, machine, instances),
        log=machine.layout.log("gpus"),
        after=["validation"],
    )


def _missing(machine: Machine, instances: Sequence[Instance]) -> str | None:
    if machine.instances.cpu_only or not machine.enabled:
        return None
    there = gpu.count()
    if there == 0:
        return (
            "no GPU here (no /dev/nvidia0): install the NVIDIA driver; in an image build use "
            "doit build; without a GPU set instances.cpu_only: true"
        )
    beyond = [str(instance.gpu) for instance in instances if instance.gpu >= there]
    if beyond:
        return f"no GPU {', '.join(beyond)} here, there are {there}: correct instances.gpus"
    return None


def _refuse(machine: Machine, instances: Sequence[Instance], log: Path) -> None:
    if reason := _missing(machine, instances):
        raise Failure(reason)
