"""systemd: a unit file's syntax, and the unit that brings a machine back after a reboot."""

from __future__ import annotations

import hashlib
import os
import pwd
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from . import files, process, templates
from .failure import Failure

SYSTEM_UNITS = Path("/etc/systemd/system")
TIMEOUT = 60.0
"""Seconds for one systemctl call; no call waits for a unit."""
POLL = 0.1
"""Seconds between two checks of a unit that is ending."""
#: Variables by which systemctl finds a user's manager.
BUS = ("XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS", "XDG_CONFIG_HOME")


@dataclass(frozen=True)
class Manager:
    """The system's or a user's manager, and the folder that it reads units from."""

    folder: Path
    user: bool

    def ask(self, *arguments: str) -> str:
        """The output of systemctl. Raises Failure."""
        scope = ["--user"] if self.user else []
        return _call("systemctl", *scope, *arguments)

    def state(self, name: str) -> dict[str, str]:
        """A unit's ActiveState, SubState and UnitFileState, also for a unit that doesn't exist."""
        shown = self.ask("show", "--property=ActiveState,SubState,UnitFileState", name)
        return dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)


def manager() -> Manager:
    """The system's manager for root, else the user's."""
    if os.geteuid() == 0:
        return Manager(SYSTEM_UNITS, user=False)
    config = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Manager(Path(config) / "systemd" / "user", user=True)


def unit_name(file: Path) -> str:
    """The name of a machine file's unit: readable, and unique per file."""
    words = [file.parent.name, *([file.stem] if file.stem != "machine" else [])]
    slug = re.sub(r"[^a-z0-9]+", "-", "-".join(words).lower()).strip("-")[:40]
    digest = hashlib.sha256(os.fsencode(file)).hexdigest()[:6]
    return f"comfy-machine-{slug}-{digest}.service" if slug else f"comfy-machine-{digest}.service"


def render(
    file: Path,
    workspace: Path,
    project: Path,
    boot: Sequence[object],
    doit: Path,
    *,
    user_unit: bool,
) -> str:
    """The unit file. `boot` is the command that gets doit's command as arguments.

    Raises Failure for a path that a unit file can't contain.
    """
    for path in (file, workspace, project, doit):
        if not str(path).isprintable() or str(path) != str(path).strip() or str(path)[-1] == "\\":
            raise Failure(f"a systemd unit can't contain the path {str(path)!r}: move it")
    return templates.render(
        "machine.service.j2",
        filters={"word": word, "quoted": quoted, "specifiers": specifiers},
        file=str(file),
        mounts=list(dict.fromkeys(map(str, (workspace, file.parent, project)))),
        project=str(project),
        owner=_owner(workspace, file),
        # After env, since systemd doesn't expand variables in the first word.
        boot=["/usr/bin/env", *map(str, boot)],
        doit=[str(doit), f"machine={file}"],
        down=["/usr/bin/env", str(doit), "down", f"machine={file}"],
        user_unit=user_unit,
    )


def specifiers(text: str) -> str:
    """Escape `%`, which begins a specifier."""
    return text.replace("%", "%%")


def quoted(text: str) -> str:
    """One quoted word of a list."""
    escaped = specifiers(text).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def word(text: str) -> str:
    """One argument of a command line, where systemd would also expand `$NAME`."""
    plain = re.fullmatch(r"[\w@+=:,./-]+", text, re.ASCII)
    return text if plain else quoted(text).replace("$", "$$")


def install(at: Manager, name: str, text: str) -> bool:
    """Write, enable and start a unit; False: nothing had to change.

    Doesn't wait for the start, which may take hours. Raises Failure.
    """
    _require_systemd(at)
    unit = at.folder / name
    is_current = unit.is_file() and unit.read_text() == text
    state = at.state(name)
    active = state.get("ActiveState") in ("active", "activating", "reloading")
    if is_current and active and state.get("UnitFileState") == "enabled":
        return False
    if not is_current:
        files.write_text(unit, text)
        at.ask("daemon-reload")
    at.ask("enable", name)
    if not active:
        at.ask("start", "--no-block", name)
    return True


def remove(at: Manager, name: str) -> bool:
    """Remove a unit without stopping its processes; False: there was none. Raises Failure."""
    unit = at.folder / name
    if not unit.exists():
        return False
    _require_systemd(at)
    at.ask("disable", name)
    _end_start(at, name)
    unit.unlink()
    at.ask("daemon-reload")
    return True


def _end_start(at: Manager, name: str) -> None:
    """End a start that is being retried, without stopping the unit, which would end instances."""
    if at.state(name).get("SubState") == "start":
        at.ask("kill", "--kill-who=main", name)
    deadline = time.monotonic() + TIMEOUT
    # If the file were removed meanwhile, systemd would end everything that the unit started.
    while at.state(name).get("SubState") == "start" and time.monotonic() < deadline:
        time.sleep(POLL)


def linger(user: str) -> None:
    """Let a user's units run without a login session. Raises Failure."""
    _call("loginctl", "enable-linger", user)


def _require_systemd(at: Manager) -> None:
    """Raises Failure where no systemd runs, as in a container."""
    try:
        at.ask("show", "--property=Version")
    except Failure as failure:
        whose = "of this user runs here" if at.user else "runs here"
        raise Failure(
            f"no systemd {whose}; in a container, use its restart policy instead: {failure}"
        ) from None


def _call(*command: str) -> str:
    try:
        return process.run(command, env=_environment(), timeout=TIMEOUT).strip()
    except process.CommandFailed as failed:
        why = process.last_line(failed.output or str(failed))
        raise Failure(f"{' '.join(command[:-1])} failed: {why}") from None


def _environment() -> dict[str, str]:
    found = {key: os.environ[key] for key in BUS if key in os.environ}
    runtime = Path("/run/user") / str(os.getuid())
    if "XDG_RUNTIME_DIR" not in found and runtime.is_dir():
        found["XDG_RUNTIME_DIR"] = str(runtime)
    return process.allowed_environment(os.environ) | found


def _owner(workspace: Path, file: Path) -> str:
    """The user who runs the machine's processes: the workspace's owner, as for PM2."""
    uid = (workspace if workspace.exists() else file).stat().st_uid
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
