"""The running apps of a workspace, found through marks in their environment.

Every app starts with its workspace, name and fingerprint in its environment, which the kernel keeps
in /proc. So the answer depends neither on PM2 nor on a receipt, and includes orphans of a killed
daemon. Processes of other users can't be read, but none of them is an app of ours.
"""

from __future__ import annotations

import contextlib
import os
import re
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
"""The app that watches the instances."""
SERVER = "health-server"
JOBS_SERVER = "comfyui-jobs"
"""The NATS server that keeps the jobs."""
SCHEDULER = "comfyui-scheduler"
GATEWAY = "comfyui-gateway"
JOBS = (GATEWAY, SCHEDULER, JOBS_SERVER)
"""The apps of jobs, in the order in which they end: each needs those after it."""
OURS = (WATCHER, SERVER, *JOBS)
"""Apps that aren't instances or workers."""
PROCESS = "COMFY_MACHINE_PROCESS"
"""The app's own process, as `identity` gives it. Processes that it starts inherit the variable,
which marks them as helpers wherever they are in the process tree."""
PORT = "COMFYUI_PORT"
"""The port of an instance; custom nodes may read it too."""
SCHEME = "COMFYUI_SCHEME"
"""The URL scheme of an instance: http, or https with a certificate."""
MEMORY = "COMFY_MACHINE_MEMORY"
"""How many instances share the memory, and each one's limit, if any."""
GRACE = 10.0
"""Seconds between SIGINT and SIGKILL; ComfyUI needs 1.7 s when idle."""
HELPERS = 3.0
"""Seconds between SIGTERM and SIGKILL for helpers."""
LOOK_EVERY = 0.02
"""Seconds between two checks whether a process has ended."""


DECLARED = re.compile(r"[a-z0-9-]+-(gpu\d+|machine)")
"""The names of instances and workers. Users may run their own apps in this PM2."""
INSTANCES = "comfyui-gpu"
"""How the names of instances begin."""


def is_instance(name: str) -> bool:
    """Whether an app of this name is an instance; no worker may be called comfyui."""
    return name.startswith(INSTANCES)


def in_turn(names: Collection[str]) -> Iterator[set[str]]:
    """Groups of these apps that aren't instances, in the order in which they end: workers first,
    and of jobs each before what it needs. The NATS server isn't among them: it is last of all."""
    rest = {name for name in names if not is_instance(name) and name not in JOBS}
    groups = (rest, {GATEWAY}, {SCHEDULER})
    yield from (found for group in groups if (found := group & {*names}))


@dataclass(frozen=True)
class App:
    """One running app; `supervised` if PM2 is its parent, otherwise it is an orphan."""

    name: str
    pid: int
    fingerprint: str
    supervised: bool
    started: float
    """Seconds since the epoch."""
    port: int | None = None
    """The port of an instance."""
    scheme: str = "http"
    """The URL scheme of an instance."""


@dataclass(frozen=True)
class Helper:
    """A process that an app started, and that still runs after the app ended."""

    app: str
    pid: int
    started: float
    """Seconds since the epoch."""


@dataclass(frozen=True)
class Look:
    """The running apps of a workspace, and the helpers that ended ones left, at one moment."""

    apps: list[App]
    left: list[Helper]


def running(workspace: Path, daemon: int | None) -> list[App]:
    """The running apps of a workspace; `daemon` is the pid of PM2's daemon."""
    return look(workspace, daemon).apps


def look(workspace: Path, daemon: int | None) -> Look:
    """The running apps of a workspace, and the helpers that ended ones left."""
    import psutil

    marked = _marked(workspace)
    running_apps, left = [], []
    for pid, marks in marked.items():
        try:
            process = psutil.Process(pid)
            parent = process.ppid()
            if process.status() == psutil.STATUS_ZOMBIE:
                continue
            started = process.create_time()
        except psutil.Error:
            continue
        name, owner = marks.get(NAME, ""), marks.get(PROCESS)
        if owner and owner != identity(pid):
            if not _runs_still(owner):
                left.append(Helper(name, pid, started))
        elif parent not in marked:
            # Workers have the port of their instance.
            port = marks.get(PORT, "") if is_instance(name) else ""
            running_apps.append(
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
    return Look(sorted(running_apps, key=lambda app: (app.name, app.pid)), left)


def identity(pid: int) -> str | None:
    """`pid.start`, with the start in clock ticks since boot; None for an ended process.

    It survives exec, and is unique until the next boot.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return None if fields[0] in b"ZX" else f"{pid}.{fields[19].decode()}"
    except (OSError, LookupError):
        return None


def _runs_still(process: str) -> bool:
    pid = process.partition(".")[0]
    return pid.isdecimal() and identity(int(pid)) == process


def _marked(workspace: Path) -> dict[int, dict[str, str]]:
    """Pid → marks of each process of a workspace, including helpers."""
    import psutil

    marked = {pid: _marks(pid) for pid in psutil.pids()}
    return {
        pid: marks
        for pid, marks in marked.items()
        if marks.get(WORKSPACE) == str(workspace) and is_here(pid)
    }


def is_here(pid: int) -> bool:
    """Whether a process has the same file system as this one.

    The host, and a container with --pid=host, also see processes of other containers, where the
    same path may be another machine.
    """
    try:
        return Path(f"/proc/{pid}/root").samefile("/")
    except OSError:
        return False


def family(workspace: Path) -> set[int]:
    """The pids of a workspace's apps and of all their descendants."""

    pids = set(_marked(workspace))
    return pids | {child.pid for child in started_by(pids)}


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
    """End the helpers that these apps, or any, left behind; return them."""
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
    """End these processes together: SIGTERM, and SIGKILL after HELPERS seconds."""
    import psutil

    for act in ("terminate", "kill"):
        remaining = [process for process in processes if runs(process)]
        for process in remaining:
            with contextlib.suppress(psutil.Error):
                getattr(process, act)()
        deadline = time.monotonic() + HELPERS
        for process in remaining:
            ends(process, max(0.0, deadline - time.monotonic()))


def started_by(pids: Iterable[int]) -> list[psutil.Process]:
    """The descendants of these processes."""
    import psutil

    children: list[psutil.Process] = []
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            children += psutil.Process(pid).children(recursive=True)
    return children


def ends(process: psutil.Process, timeout: float) -> bool:
    """Whether it ends within `timeout` seconds.

    psutil's own wait waits until the parent has reaped it, but the init of a container may take
    seconds for that or never do it.
    """
    deadline = time.monotonic() + timeout
    while runs(process):
        if time.monotonic() > deadline:
            return False
        time.sleep(LOOK_EVERY)
    return True


def runs(process: psutil.Process) -> bool:
    """Whether a process runs; False for a zombie."""
    import psutil

    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def folders_in_use(parent: Path) -> set[str]:
    """The names of folders in `parent` that are, or contain, some process's working directory."""
    names = set()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            cwd = (process / "cwd").readlink()
            if cwd.is_relative_to(parent) and cwd != parent:
                names.add(cwd.relative_to(parent).parts[0])
    return names


def _marks(pid: int) -> dict[str, str]:
    try:
        content = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return {}
    if WORKSPACE.encode() not in content:
        return {}
    pairs = (item.partition(b"=") for item in content.split(b"\0") if item)
    return {os.fsdecode(key): os.fsdecode(value) for key, _, value in pairs}
