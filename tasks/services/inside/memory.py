"""The share of this machine's memory that an instance may use.

ComfyUI asks psutil for the memory, and sizes its caches and pinned memory by the answer. psutil
describes the host: it knows neither a cgroup's limit nor other instances that get the same answer.
So ComfyUI's own modules get the instance's share; custom nodes and libraries get psutil's answer.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import hooks

SHARE = "COMFY_MACHINE_MEMORY"
"""The variable with the number of instances here and, optionally, the limit of each in bytes."""
OWN = ("RssAnon", "RssShmem", "VmSwap")
"""Fields of /proc/self/status, without file pages: the kernel reclaims those."""
NODES = "custom_nodes"


class Share:
    """An instance's share of the memory of this machine and its cgroups."""

    def __init__(self, instances: int, limit: int = sys.maxsize, *, root: Path = Path("/")) -> None:
        self._instances = instances
        self._limit = limit
        self._status = root / "proc/self/status"
        self._groups = list(_groups(root))

    def of(self, total: int, available: int) -> tuple[int, int]:
        """The share, and how much of it is still available, in bytes, of a host that has `total`
        bytes with `available` of them free.

        All instances together never get more than there is.
        """
        host = total
        for group in self._groups:
            limit = group.limit()
            if limit < host:
                total = min(total, limit)
                available = min(available, limit - group.used())
        part = min(total // self._instances, self._limit)
        own = sum(_numbers(self._status, OWN)) * 1024
        return part, max(0, min(available, part - own))


class _Group:
    """A cgroup with the memory controller; versions 1 and 2 name its files differently."""

    def __init__(self, folder: Path, first: bool) -> None:
        names = ("limit_in_bytes", "usage_in_bytes") if first else ("max", "current")
        self._limit, self._usage = (folder / f"memory.{name}" for name in names)
        self._stat = folder / "memory.stat"
        prefix = "total_" if first else ""
        self._files = (f"{prefix}inactive_file", f"{prefix}active_file")

    def exists(self) -> bool:
        """Whether it has a limit; the root cgroup of version 2 has none."""
        return self._limit.is_file()

    def limit(self) -> int:
        """Bytes; without a limit the kernel writes "max" or a huge number."""
        text = self._limit.read_text().strip()
        return sys.maxsize if text == "max" else int(text)

    def used(self) -> int:
        """Bytes, without file pages."""
        return int(self._usage.read_text()) - sum(_numbers(self._stat, self._files))


def _groups(root: Path) -> Iterator[_Group]:
    """This process's cgroup and its ancestors, of both versions."""
    for line in (root / "proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top = root / "sys/fs/cgroup" / ("memory" if controllers else "")
        folder = top / path.strip("/")
        # A container sees its own cgroup as the root, whatever the path outside.
        for place in {top, folder, *folder.parents}:
            group = _Group(place, bool(controllers))
            if group.exists():
                yield group


def _numbers(file: Path, names: tuple[str, ...]) -> Iterator[int]:
    """The first number of each line that begins with one of the names."""
    for line in file.read_text().splitlines():
        name, _, rest = line.replace(":", " ", 1).partition(" ")
        if name in names:
            yield int(rest.split()[0])


def attach() -> None:
    """Replace psutil.virtual_memory once psutil is imported."""
    share = Share(*map(int, os.environ[SHARE].split()))
    hooks.after_import("psutil", functools.partial(_answer, share))


def _answer(share: Share, psutil: Any) -> None:
    """Give ComfyUI's own modules the share, unless it is all of the memory."""
    ask = psutil.virtual_memory
    host = ask()
    if share.of(host.total, host.available)[0] == host.total:
        return

    @functools.wraps(ask)
    def virtual_memory() -> Any:
        host = ask()
        if not _is_comfyui(sys._getframe(1).f_globals.get("__file__")):
            return host
        try:
            total, available = share.of(host.total, host.available)
        except (OSError, ValueError):
            return host
        free = min(host.free, available)
        percent = round((total - available) / total * 100, 1)
        parts = {"total": total, "available": available, "free": free, "used": total - available}
        return host._replace(percent=percent, **parts)

    psutil.virtual_memory = virtual_memory


@functools.cache
def _is_comfyui(file: str | None) -> bool:
    """Whether a module is ComfyUI's own: in the folder of main.py and not a custom node."""
    main = getattr(sys.modules.get("__main__"), "__file__", None)
    if file is None or main is None:
        return False
    folder, path = Path(main).resolve().parent, Path(file).resolve()
    return path.is_relative_to(folder) and path.relative_to(folder).parts[0] != NODES
