"""What instances may use, against what this machine has and allows."""

from __future__ import annotations

import resource
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from .engine.run import Run
from .engine.step import Task, step
from .generation import stage as generation
from .host.pm2 import apps
from .host.system import gpu, usage
from .host.system.failure import Failure
from .source import arguments
from .source import stage as source
from .spec import Instance, Limits, in_bytes
from .spec.sizes import shown

SYS_NICE, SYS_RESOURCE = 23, 24
"""Numbers of capabilities; root in a container often lacks them."""


@dataclass(frozen=True)
class Capacity:
    """What this machine has, and what this process may ask of it."""

    memory: int
    """Bytes."""
    nice: int
    """The lowest."""
    open_files: int
    """The highest number."""


def tasks(run: Run) -> Iterator[Task]:
    instances = run.instances
    yield step(
        run,
        "limits",
        "What instances are given, this machine has: memory, files",
        check=partial(_why_not_possible, run, instances),
        action=partial(_refuse, run, instances),
        after=["validation"],
    )


def _why_not_possible(run: Run, instances: Sequence[Instance]) -> str | None:
    limits = run.machine.instances.limits
    if not instances:
        return None
    beyond = None if limits == Limits() else excess(limits, capacity())
    return beyond or arguments.file_problem(run, partial(_pinned, run))


def _pinned(run: Run) -> arguments.PinnedComfyUI:
    python = generation.python_of(generation.folder_of(run))
    return source.pinned(run, generation.code_of(run), python)


def _refuse(run: Run, instances: Sequence[Instance], log: Path) -> None:
    if reason := _why_not_possible(run, instances):
        raise Failure(reason)


def excess(limits: Limits, has: Capacity) -> str | None:
    """None, or the first limit that can't be, with what can."""
    if limits.memory and in_bytes(limits.memory) > has.memory:
        return (
            f"instances.limits.memory: {limits.memory} is more than this machine has "
            f"({shown(has.memory >> 20 << 20)}): give less"
        )
    if limits.nice < has.nice:
        return (
            f"instances.limits.nice: {limits.nice} needs root (CAP_SYS_NICE): "
            f"give {has.nice} or more"
        )
    if limits.open_files and limits.open_files > has.open_files:
        return (
            f"instances.limits.open_files: {limits.open_files} is more than may be opened here: "
            f"give {has.open_files} or less, or raise the hard limit (ulimit -Hn)"
        )
    return None


def capacity() -> Capacity:
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    if has_capability(SYS_RESOURCE):
        files = int(Path("/proc/sys/fs/nr_open").read_text())
    lowest = 20 - resource.getrlimit(resource.RLIMIT_NICE)[0]
    return Capacity(
        usage.machine_memory(), -20 if has_capability(SYS_NICE) else min(lowest, 0), files
    )


def has_capability(number: int) -> bool:
    """Whether this process has a capability."""
    lines = Path("/proc/self/status").read_text().splitlines()
    held = next((line.split()[1] for line in lines if line.startswith("CapEff:")), "0")
    return bool(int(held, 16) >> number & 1)


def warn_if_overcommitted(run: Run, instances: Sequence[Instance]) -> None:
    """Caps that each fit, and together don't: the kernel may end an instance before one does."""
    memory = run.machine.instances.limits.memory
    if memory and in_bytes(memory) * len(instances) > usage.machine_memory():
        run.warn(
            f"instances.limits.memory: {memory} for each of {len(instances)} instances is more "
            f"than this machine has ({shown(usage.machine_memory() >> 20 << 20)})"
        )


def memory_share(run: Run) -> dict[str, str]:
    """What an instance's `services/inside/memory.py` is told; nothing where it isn't wanted."""
    wanted = run.machine.instances
    if not wanted.share_memory:
        return {}
    most = [str(in_bytes(wanted.limits.memory))] if wanted.limits.memory else []
    return {apps.MEMORY: " ".join([str(len(run.machine.instances_for(gpu.count()))), *most])}


def shim_options(limits: Limits) -> list[str]:
    """Options of the exec shim, which sets them."""
    return [
        *(["--nice", str(limits.nice)] if limits.nice else []),
        *(["--open-files", str(limits.open_files)] if limits.open_files else []),
    ]
