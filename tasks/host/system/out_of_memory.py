"""What the kernel's OOM killer killed: its log names the process, and cgroups count.

The log can't be read everywhere: in containers, or by users without CAP_SYSLOG. Sources of the
formats: Documentation/ABI/testing/dev-kmsg, Documentation/admin-guide/cgroup-v2.rst.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
LOG = "/dev/kmsg"
MOST = 20_000
"""Records of the kernel's log that are read."""
_RECORD = re.compile(r"\d+,\d+,(?P<at>\d+),[^;]*;oom-kill:.*,pid=(?P<pid>\d+),")
_COUNT = re.compile(r"^oom_kill (\d+)$", re.M)


@dataclass(frozen=True)
class Counter:
    """How many processes of a cgroup the OOM killer killed; no file: not known."""

    file: str
    killed: int


def counter() -> Counter:
    """The count of this process's cgroup, or the nearest above it that counts."""
    for file in _files():
        if (killed := count(file)) is not None:
            return Counter(str(file), killed)
    return Counter("", 0)


def count(file: Path | str) -> int | None:
    """The count in a file; None: it doesn't say."""
    try:
        found = _COUNT.search(Path(file).read_text())
    except OSError:
        return None
    return int(found[1]) if found else None


def names(pid: int, started: float) -> bool:
    """Whether the kernel's log says that it killed this process, started then (since the epoch)."""
    try:
        log = os.open(LOG, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        return killed(_records(log), pid, started - _boot_time())
    finally:
        os.close(log)


def killed(records: Iterable[str], pid: int, started: float) -> bool:
    """Whether these records say so; `started` is in seconds since the boot."""
    for record in records:
        found = _RECORD.match(record)
        if found and int(found["pid"]) == pid and int(found["at"]) / 1e6 >= started - 1:
            return True
    return False


def _records(log: int) -> Iterator[str]:
    for _ in range(MOST):
        try:
            yield os.read(log, 8192).decode(errors="replace")
        except BlockingIOError:
            return
        except OSError:
            # It was overwritten while it was read.
            continue


def _files() -> Iterator[Path]:
    """The files that may count, the nearest cgroup first: of version 2, then of version 1."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for number, controllers, path in (line.split(":", 2) for line in lines):
        if number == "0":
            folder, name = CGROUPS, "memory.events"
        elif "memory" in controllers.split(","):
            folder, name = CGROUPS / "memory", "memory.oom_control"
        else:
            continue
        own = folder / path.lstrip("/")
        for each in (own, *own.parents):
            yield each / name
            if each == folder:
                break


def _boot_time() -> float:
    """In seconds since the epoch."""
    import time

    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
