"""The part of this machine's memory that an instance plans with.

ComfyUI asks psutil how much there is, and keeps results, models and pinned memory by the answer.
psutil tells of the host, neither of a cgroup's limit nor of instances that were told the same.
So ComfyUI's own modules get the instance's part as the answer; custom nodes and libraries that
ask get what psutil says.
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
"""Variable: how many instances share this machine, and this one's limit in bytes if it has one."""
OWN = ("RssAnon", "RssShmem", "VmSwap")
"""Fields of /proc/self/status. Pages of files are none of them: the kernel takes those back."""
NODES = "custom_nodes"


class Share:
    """An instance's share of what this machine has, or the cgroups around us leave of it."""

    def __init__(self, instances: int, limit: int = sys.maxsize, *, root: Path = Path("/")) -> None:
        self._instances = instances
        self._limit = limit
        self._status = root / "proc/self/status"
        self._groups = list(_groups(root))

    def of(self, total: int, available: int) -> tuple[int, int]:
        """Its part, and what it can still take of that, of a host that has `total` bytes and
        `available` of them free.

        What instances hold and can still take is together never more than there is.
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
    """A cgroup that accounts for memory; its files are named by the version."""

    def __init__(self, folder: Path, first: bool) -> None:
        names = ("limit_in_bytes", "usage_in_bytes") if first else ("max", "current")
        self._limit, self._usage = (folder / f"memory.{name}" for name in names)
        self._stat = folder / "memory.stat"
        prefix = "total_" if first else ""
        self._files = (f"{prefix}inactive_file", f"{prefix}active_file")

    def is_there(self) -> bool:
        """The top of all has no limit in version 2."""
        return self._limit.is_file()

    def limit(self) -> int:
        """Bytes. The kernel writes "max", or a number above all that a host has, for none."""
        text = self._limit.read_text().strip()
        return sys.maxsize if text == "max" else int(text)

    def used(self) -> int:
        """Bytes, without pages of files."""
        return int(self._usage.read_text()) - sum(_numbers(self._stat, self._files))


def _groups(root: Path) -> Iterator[_Group]:
    """Our cgroup and those around it, of both versions."""
    for line in (root / "proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top = root / "sys/fs/cgroup" / ("memory" if controllers else "")
        folder = top / path.strip("/")
        # In a container its own cgroup is mounted as the top, whatever its path is outside.
        for place in {top, folder, *folder.parents}:
            group = _Group(place, bool(controllers))
            if group.is_there():
                yield group


def _numbers(file: Path, names: tuple[str, ...]) -> Iterator[int]:
    """The first number of each line that begins with one of the names."""
    for line in file.read_text().splitlines():
        name, _, rest = line.replace(":", " ", 1).partition(" ")
        if name in names:
            yield int(rest.split()[0])


def attach() -> None:
    """Answer ComfyUI from the moment when it asks."""
    share = Share(*map(int, os.environ[SHARE].split()))
    hooks.after_import("psutil", functools.partial(_answer, share))


def _answer(share: Share, psutil: Any) -> None:
    """Have ComfyUI's own modules told their part, unless that is all there is."""
    ask = psutil.virtual_memory
    said = ask()
    if share.of(said.total, said.available)[0] == said.total:
        return

    @functools.wraps(ask)
    def virtual_memory() -> Any:
        said = ask()
        if not _is_comfyui(sys._getframe(1).f_globals.get("__file__")):
            return said
        try:
            total, available = share.of(said.total, said.available)
        except (OSError, ValueError):
            return said
        free = min(said.free, available)
        percent = round((total - available) / total * 100, 1)
        parts = {"total": total, "available": available, "free": free, "used": total - available}
        return said._replace(percent=percent, **parts)

    psutil.virtual_memory = virtual_memory


@functools.cache
def _is_comfyui(file: str | None) -> bool:
    """Whether a module is ComfyUI's own: below the folder of main.py, and no custom node."""
    main = getattr(sys.modules.get("__main__"), "__file__", None)
    if file is None or main is None:
        return False
    folder, path = Path(main).resolve().parent, Path(file).resolve()
    return path.is_relative_to(folder) and path.relative_to(folder).parts[0] != NODES
