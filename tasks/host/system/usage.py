"""CPU time and memory of processes, and this machine's memory; from /proc and cgroups."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

OWN = ("Pss_Anon", "Pss_Shmem", "SwapPss")
"""Fields of smaps_rollup, without file pages: the kernel reclaims those."""
ANON = ("Private_Dirty", "Swap")
"""The corresponding fields on kernels before 5.4."""


@dataclass(frozen=True)
class Effort:
    """What a process has done since it began."""

    cpu: float
    """Seconds of CPU time."""
    faults: int
    """Major page faults: a process that maps a checkpoint from a slow disk uses no CPU."""
    waits: bool = False
    """Whether it is runnable or waits for the disk now."""


def effort(pid: int) -> Effort | None:
    """What a process and its descendants have done; None: it has ended."""
    found = [each for member in family(pid) if (each := own_effort(member))]
    if not found:
        return None
    return Effort(
        sum(each.cpu for each in found),
        sum(each.faults for each in found),
        any(each.waits for each in found),
    )


def own_effort(pid: int) -> Effort | None:
    """What a process has done, with the children that it reaped; None: it has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    # proc(5), after the name, which may hold spaces: state, majflt, utime, stime, cutime, cstime.
    fields = stat.rpartition(")")[2].split()
    ticks = sum(map(int, fields[11:15]))
    return Effort(ticks / os.sysconf("SC_CLK_TCK"), int(fields[9]), fields[0] in "RD")


def family(pid: int) -> list[int]:
    """A process and its descendants; psutil reads all of /proc and takes fifty times as long."""
    members = [pid]
    for member in members:
        for thread in _threads(member):
            # The process has ended, or the kernel doesn't list children.
            with suppress(OSError):
                members += map(int, (thread / "children").read_text().split())
    return members


def _threads(pid: int) -> list[Path]:
    try:
        return list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return []


def resident(pid: int) -> int:
    """Resident bytes of a process and its descendants."""
    import psutil

    total = 0
    for member in family(pid):
        with suppress(psutil.Error):
            total += psutil.Process(member).memory_info().rss
    return total


def threads(pid: int) -> frozenset[int]:
    """The kernel ids of a process's threads."""
    try:
        return frozenset(map(int, os.listdir(f"/proc/{pid}/task")))  # noqa: PTH208  every second
    except OSError:
        return frozenset()


def own_memory(pid: int) -> int | None:
    """Private bytes of a process and its descendants; None: not known."""
    found = [each for member in family(pid) if (each := _own_memory(member)) is not None]
    return sum(found) if found else None


def _own_memory(pid: int) -> int | None:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return None
    kilobytes = {name: int(rest.split()[0]) for name, _, rest in (x.partition(":") for x in lines)}
    fields = OWN if OWN[0] in kilobytes else ANON
    return sum(kilobytes.get(name, 0) for name in fields) * 1024


def machine_memory(root: Path = Path("/")) -> int:
    """Bytes of memory that this machine and our cgroups allow."""
    import psutil

    return min([psutil.virtual_memory().total, *_cgroup_limits(root)])


def _cgroup_limits(root: Path) -> Iterator[int]:
    """The limits of our cgroup and its ancestors, of both versions."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top = root / "sys/fs/cgroup" / ("memory" if controllers else "")
        name = "memory.limit_in_bytes" if controllers else "memory.max"
        folder = top / path.strip("/")
        # A container sees its own cgroup as the root, whatever the path outside.
        for place in {top, folder, *folder.parents}:
            with suppress(OSError, ValueError):
                yield int((place / name).read_text())


def resident_each(pids: Iterable[int]) -> dict[int, int]:
    """Pid → resident bytes of that process and its descendants."""
    import psutil

    parents = {pid: _parent(pid) for pid in psutil.pids()}
    totals = dict.fromkeys(pids, 0)
    for pid in parents:
        above: int | None = pid
        while above not in totals and above in parents:
            above = parents[above]
        if above in totals:
            with suppress(psutil.Error):
                totals[above] += psutil.Process(pid).memory_info().rss
    return totals


def _parent(pid: int) -> int | None:
    # psutil.Process(pid).ppid() takes three times as long, and there may be thousands.
    try:
        return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[1])
    except (OSError, LookupError, ValueError):
        return None
