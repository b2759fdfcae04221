"""One run at a time per workspace: a kernel lock that a killed run gives back by itself."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from tasks.host import private, process


class Taken(Exception):  # noqa: N818  reads as what happened
    """Another run has the workspace; `str()` names its pid and task."""


class RunLock:
    """The run lock of a workspace; held until this process ends."""

    def __init__(self, workspace: Path) -> None:
        self._workspace = workspace
        self._descriptor = -1

    def take(self, what: str) -> None:
        """Raises Taken at once when another run holds it."""
        path = private.make(self._workspace) / "run.lock"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            run_id, _, task = os.pread(descriptor, 4096, 0).decode(errors="replace").partition(" ")
            os.close(descriptor)
            pid = run_id.split(".")[0]
            raise Taken(
                f"a run is on in {self._workspace} (pid {pid}, {task or 'starting'}): "
                "wait for it, or end it with: kill " + pid
            ) from None
        self._descriptor = descriptor
        if left := os.pread(descriptor, 4096, 0).decode(errors="replace"):
            process.end_left_by(left.split(" ")[0])
        self.note(what)

    def holder(self) -> int | None:
        """The pid of the run that is on, None when there is none; takes nothing."""
        import psutil

        try:
            run_id = (private.folder(self._workspace) / "run.lock").read_text(errors="replace")
            pid = int(run_id.split(".")[0])
        except (OSError, ValueError):
            return None
        # A killed run leaves its note behind; the kernel gave its lock back.
        return pid if psutil.pid_exists(pid) else None

    def release(self) -> None:
        """Say that this run came to its end; the kernel's lock goes with the process."""
        if self._descriptor >= 0:
            os.ftruncate(self._descriptor, 0)

    def note(self, what: str) -> None:
        """Say what this run is doing, for whoever finds the lock taken."""
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{process.RUN_ID} {what}".encode()[:4096], 0)
