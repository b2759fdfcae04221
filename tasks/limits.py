"""Checks that the limits of instances fit this machine."""

from __future__ import annotations

import resource
from collections.abc import Iterator
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
from .spec import Limits, in_bytes
from .spec.sizes import shown

SYS_NICE, SYS_RESOURCE = 23, 24
"""Numbers of Linux capabilities; root in a container often lacks them."""


@dataclass(frozen=True)
class Capacity:
    """What this machine has, and what this process may request."""

    memory: int
    """Bytes."""
    nice: int
    """The lowest value."""
    open_files: int
    """The highest number."""


def tasks(run: Run) -> Iterator[Task]:
    yield step(
        run,
        "limits",
        "This machine has the memory and open files that instances may use",
        check=partial(_why_not_possible, run),
        action=partial(_refuse, run),
        after=["validation"],
    )


def _why_not_possible(run: Run) -> str | None:
    limits = run.machine.instances.limits
    if not run.instances:
        return None
    beyond = None if limits == Limits() else excess(limits, capacity())
    return beyond or arguments.file_problem(run, partial(_pinned, run))


def _pinned(run: Run) -> arguments.PinnedComfyUI:
    python = generation.python_of(generation.folder_of(run))
    return source.pinned(run, generation.code_of(run), python)


def _refuse(run: Run, log: Path) -> None:
    if reason := _why_not_possible(run):
        raise Failure(reason)


def excess(limits: Limits, has: Capacity) -> str | None:
    """The first limit that is too high, and what is possible; None: all fit."""
    if limits.memory and in_bytes(limits.memory) > has.memory:
        return (
            f"instances.limits.memory: {limits.memory} is more than this machine has "
            f"({shown(has.memory >> 20 << 20)}): lower it"
        )
    if limits.nice < has.nice:
        return (
            f"instances.limits.nice: {limits.nice} needs root (CAP_SYS_NICE): "
            f"set {has.nice} or more"
        )
    if limits.open_files and limits.open_files > has.open_files:
        return (
            f"instances.limits.open_files: {limits.open_files} is above the hard limit: "
            f"set {has.open_files} or less, or raise the hard limit (ulimit -Hn)"
        )
    return None


def capacity() -> Capacity:
    """Of this machine and process, from getrlimit(2), capabilities(7) and /proc/meminfo."""
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    if has_capability(SYS_RESOURCE):
        files = int(Path("/proc/sys/fs/nr_open").read_text())
    lowest = 20 - resource.getrlimit(resource.RLIMIT_NICE)[0]
    return Capacity(
        usage.machine_memory(), -20 if has_capability(SYS_NICE) else min(lowest, 0), files
    )


def has_capability(number: int) -> bool:
    """Whether this process has a capability, by its number in capabilities(7)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    held = next((line.split()[1] for line in lines if line.startswith("CapEff:")), "0")
    return bool(int(held, 16) >> number & 1)


def warn_if_overcommitted(run: Run) -> None:
    """Warn when the memory caps of all instances exceed the machine's memory: the kernel may then
    end an instance below its cap."""
    memory = run.machine.instances.limits.memory
    if memory and in_bytes(memory) * len(run.instances) > usage.machine_memory():
        run.warn(
            f"instances.limits.memory: {memory} for each of {len(run.instances)} instances is more "
            f"than this machine has ({shown(usage.machine_memory() >> 20 << 20)})"
        )


def memory_share(run: Run) -> dict[str, str]:
    """The variables for `services/inside/memory.py`; empty without `instances.share_memory`."""
    wanted = run.machine.instances
    if not wanted.share_memory:
        return {}
    most = [str(in_bytes(wanted.limits.memory))] if wanted.limits.memory else []
    return {apps.MEMORY: " ".join([str(len(run.machine.instances_for(gpu.count()))), *most])}


def shim_options(limits: Limits) -> list[str]:
    """The exec shim's options that set these limits."""
    return [
        *(["--nice", str(limits.nice)] if limits.nice else []),
        *(["--open-files", str(limits.open_files)] if limits.open_files else []),
    ]
