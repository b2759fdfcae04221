"""What runs here for a workspace, read from the processes themselves.

Every app is started with marks in its environment (workspace, name, fingerprint), which the
kernel keeps in /proc; so neither PM2 nor a receipt has to be believed, and orphans of a killed
daemon are found as well. The environments of other users' processes can't be read, and no app
of ours is theirs.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psutil

WORKSPACE = "COMFY_MACHINE_WORKSPACE"
NAME = "COMFY_MACHINE_APP"
FINGERPRINT = "COMFY_MACHINE_FINGERPRINT"
WATCHER = "watcher"
"""The name of the app that watches the instances."""
SERVER = "health-server"
OURS = (WATCHER, SERVER)
"""Those that are no instance and no worker."""
PORT = "COMFYUI_PORT"
"""Part of an instance's environment, for its nodes as well."""
SCHEME = "COMFYUI_SCHEME"
"""Likewise: http, or https when it was started with a certificate."""
MEMORY = "COMFY_MACHINE_MEMORY"
"""How many instances share the memory, then what each may use of it, if that is limited."""
GRACE = 10.0
"""Seconds between SIGINT and SIGKILL; ComfyUI needs 1.7 s when idle."""
LOOK_EVERY = 0.02
"""Seconds between two looks at a process that is to end."""


@dataclass(frozen=True)
class App:
    """One running app; `supervised` when PM2 is its parent, else it is an orphan."""

    name: str
    pid: int
    fingerprint: str
    supervised: bool
    started: float
    """Seconds since the epoch."""
    port: int | None = None
    """Where an instance listens, or will."""
    scheme: str = "http"
    """How it is spoken to there, https with a certificate."""


def running(workspace: Path, daemon: int | None) -> list[App]:
    """The apps of a workspace that run now, without the children that they started."""
    import psutil

    marked = {}
    for pid in psutil.pids():
        marks = _marks(pid)
        if marks.get(WORKSPACE) == str(workspace) and is_here(pid):
            with contextlib.suppress(psutil.Error):
                marked[pid] = (psutil.Process(pid), marks)
    found = []
    for pid, (process, marks) in marked.items():
        try:
            parent = process.ppid()
            if parent in marked or process.status() == psutil.STATUS_ZOMBIE:
                continue
            supervised = daemon is not None and parent == daemon
            started = process.create_time()
        except psutil.Error:
            continue
        port = marks.get(PORT, "")
        found.append(
            App(
                name=marks.get(NAME, ""),
                pid=pid,
                fingerprint=marks.get(FINGERPRINT, ""),
                supervised=supervised,
                started=started,
                port=int(port) if port.isdecimal() else None,
                scheme=marks.get(SCHEME) or "http",
            )
        )
    return sorted(found, key=lambda app: (app.name, app.pid))


def is_here(pid: int) -> bool:
    """Whether a process sees the files that we see.

    Those of a container don't, which may be seen all the same, by the host and with --pid=host:
    another machine is at the same path there.
    """
    try:
        return Path(f"/proc/{pid}/root").samefile("/")
    except OSError:
        return False


def family(workspace: Path) -> set[int]:
    """The pids of a workspace's apps and of all that they started."""
    import psutil

    found = set()
    for app in running(workspace, None):
        found.add(app.pid)
        try:
            found |= {child.pid for child in psutil.Process(app.pid).children(recursive=True)}
        except psutil.NoSuchProcess:
            continue
    return found


def resident(found: Sequence[App]) -> dict[int, int]:
    """Bytes of memory that each app has resident with all that it started, by its pid."""
    import psutil

    parents = {pid: _parent(pid) for pid in psutil.pids()}
    totals = {app.pid: 0 for app in found}
    for pid in parents:
        above: int | None = pid
        while above not in totals and above in parents:
            above = parents[above]
        if above in totals:
            with contextlib.suppress(psutil.Error):
                totals[above] += psutil.Process(pid).memory_info().rss
    return totals


def _parent(pid: int) -> int | None:
    # psutil.Process(pid).ppid() takes three times as long, and there may be thousands.
    try:
        return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[1])
    except (OSError, LookupError, ValueError):
        return None


def end(app: App) -> None:
    """End an app that PM2 doesn't know: SIGINT, and SIGKILL after GRACE seconds."""
    import signal

    import psutil

    try:
        process = psutil.Process(app.pid)
        if process.create_time() != app.started:
            return
        process.send_signal(signal.SIGINT)
        if not ends(process, GRACE):
            process.kill()
            ends(process, GRACE)
    except psutil.NoSuchProcess:
        pass


def ends(process: psutil.Process, timeout: float) -> bool:
    """Whether it ends within so many seconds.

    psutil's own wait goes on until somebody has taken note of it, and the init of a container
    may take seconds for that, or never do it.
    """
    deadline = time.monotonic() + timeout
    while runs(process):
        if time.monotonic() > deadline:
            return False
        time.sleep(LOOK_EVERY)
    return True


def runs(process: psutil.Process) -> bool:
    """Not so one that has ended and that nobody has taken note of."""
    import psutil

    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def folders_in_use(parent: Path) -> set[str]:
    """The names below `parent` in which some process works (its cwd), whoever started it."""
    found = set()
    for cwd in _working_directories():
        if cwd.is_relative_to(parent) and cwd != parent:
            found.add(cwd.relative_to(parent).parts[0])
    return found


def _working_directories() -> Iterator[Path]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                yield Path(os.readlink(entry / "cwd"))  # noqa: PTH115
            except OSError:
                continue


def _marks(pid: int) -> dict[str, str]:
    try:
        content = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return {}
    if WORKSPACE.encode() not in content:
        return {}
    pairs = (item.partition(b"=") for item in content.split(b"\0") if item)
    return {os.fsdecode(key): os.fsdecode(value) for key, _, value in pairs}
