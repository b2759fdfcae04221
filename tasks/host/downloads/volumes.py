"""What kind of volume a folder is on."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")
_ALONE = ("fuse", "9p", "virtiofs", "vboxsf")
"""Types that give a lock which other machines may not see, unless their server takes part."""
_OPTIONS = frozenset({"nolock", "local_lock=flock", "local_lock=all", "localflock"})
"""Of NFS and Lustre."""


def locks_reach(folder: Path) -> bool:
    """Whether a lock on a file in it keeps other machines out too, as far as can be told."""
    return _reach(MOUNTS, folder.stat().st_dev)


@lru_cache(maxsize=64)
def _reach(mounts: Path, device: int) -> bool:
    number = f"{os.major(device)}:{os.minor(device)}"
    try:
        lines = mounts.read_text().splitlines()
    except OSError:
        return True
    for line in lines:
        mount, _, kind = line.partition(" - ")
        if mount.split()[2:3] == [number]:
            return not kind.startswith(_ALONE) and not _OPTIONS & set(kind.split()[-1].split(","))
    return True
