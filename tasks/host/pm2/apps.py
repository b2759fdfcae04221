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
from collections.abc import Collection, Iterable, Iterator, Sequence
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
PROCESS = "COMFY_MACHINE_PROCESS"
"""The process that the app is, as `identity` has it. What its code starts has this as well, and is
a helper of it, wherever the kernel puts that in the family."""
PORT = "COMFYUI_PORT"
"""Part of an instance's environment, for its nodes as well."""
SCHEME = "COMFYUI_SCHEME"
"""Likewise: http, or https when it was started with a certificate."""
MEMORY = "COMFY_MACHINE_MEMORY"
"""How many instances share the memory, then what each may use of it, if that is limited."""
GRACE = 10.0
"""Seconds between SIGINT and SIGKILL; ComfyUI needs 1.7 s when idle."""
HELPERS = 3.0
"""Seconds between SIGTERM and SIGKILL for what an app left."""
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


@dataclass(frozen=True)
class Helper:
    """A process that an app's code left running, and whose app is gone."""

    app: str
    pid: int
    started: float
    """Seconds since the epoch."""


@dataclass(frozen=True)
class Look:
    """What runs for a workspace at one moment."""

    apps: list[App]
    left: list[Helper]


def running(workspace: Path, daemon: int | None) -> list[App]:
    """The apps of a workspace that run now, without what they started."""
    return look(workspace, daemon).apps


def look(workspace: Path, daemon: int | None) -> Look:
    """The apps of a workspace that run now, and what those left that don't."""
    import psutil

    marked = _marked(workspace)
    found, left = [], []
    for pid, marks in marked.items():
        try:
            process = psutil.Process(pid)
            parent = process.ppid()
            if process.status() == psutil.STATUS_ZOMBIE:
                continue
            started = process.create_time()
        except psutil.Error:
            continue
        name, of = marks.get(NAME, ""), marks.get(PROCESS)
        if of and of != identity(pid):
            if not _lives(of):
                left.append(Helper(name, pid, started))
        elif parent not in marked:
            port = marks.get(PORT, "")
            found.append(
                App(
                    name=name,
                    pid=pid,
                    fingerprint=marks.get(FINGERPRINT, ""),
                    supervised=daemon is not None and parent == daemon,
                    started=started,
                    port=int(port) if port.isdecimal() else None,
                    scheme=marks.get(SCHEME) or "http",
                )
            )
    return Look(sorted(found, key=lambda app: (app.name, app.pid)), left)


def identity(pid: int) -> str | None:
    """`pid.start`, the start in ticks since the boot; None for one that has ended.

    An exec keeps it, and no other process has it before the next boot.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return None if fields[0] in b"ZX" else f"{pid}.{fields[19].decode()}"
    except (OSError, LookupError):
        return None


def _lives(of: str) -> bool:
    pid = of.partition(".")[0]
    return pid.isdecimal() and identity(int(pid)) == of


def _marked(workspace: Path) -> dict[int, dict[str, str]]:
    """The marks of each process of a workspace, what apps started included."""
    import psutil

    found = {}
    for pid in psutil.pids():
        marks = _marks(pid)
        if marks.get(WORKSPACE) == str(workspace) and is_here(pid):
            found[pid] = marks
    return found


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

    found = set(_marked(workspace))
    for pid in tuple(found):
        with contextlib.suppress(psutil.NoSuchProcess):
            found |= {child.pid for child in psutil.Process(pid).children(recursive=True)}
    return found


def end(app: App) -> None:
    """End an app that PM2 doesn't know: SIGINT, and SIGKILL after GRACE seconds."""
    import signal

    import psutil

    try:
        process = psutil.Process(app.pid)
        if process.create_time() != app.started:
            return
        helpers = process.children(recursive=True)
        process.send_signal(signal.SIGINT)
        if not ends(process, GRACE):
            process.kill()
            ends(process, GRACE)
        end_all(helpers)
    except psutil.NoSuchProcess:
        pass


def end_left(workspace: Path, names: Collection[str] | None = None) -> list[Helper]:
    """End what apps of these names, or of any, left behind; what that was."""
    import psutil

    left = [each for each in look(workspace, None).left if names is None or each.app in names]
    processes = []
    for each in left:
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(each.pid)
            if process.create_time() == each.started:
                processes.append(process)
    end_all(processes)
    return left


def end_all(processes: Sequence[psutil.Process]) -> None:
    """End these of ours that still run, together: SIGTERM, and SIGKILL after HELPERS seconds."""
    import psutil

    for act in ("terminate", "kill"):
        left = [process for process in processes if runs(process)]
        for process in left:
            with contextlib.suppress(psutil.Error):
                getattr(process, act)()
        deadline = time.monotonic() + HELPERS
        for process in left:
            ends(process, max(0.0, deadline - time.monotonic()))


def started_by(pids: Iterable[int]) -> list[psutil.Process]:
    """All that these processes started, as far as it is still below them."""
    import psutil

    found = []
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            found += psutil.Process(pid).children(recursive=True)
    return found


def ends(process: psutil.Process, timeout: float) -> bool:
    """Whether it ends within so many seconds.

    psutil's own wait lasts until its parent has reaped it, and the init of a container
    may take seconds for that, or never do it.
    """
    deadline = time.monotonic() + timeout
    while runs(process):
        if time.monotonic() > deadline:
            return False
        time.sleep(LOOK_EVERY)
    return True


def runs(process: psutil.Process) -> bool:
    """False for one that has ended and waits to be reaped."""
    import psutil

    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def folders_in_use(parent: Path) -> set[str]:
    """The names below `parent` in which some process works (its cwd), no matter who started it."""
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
