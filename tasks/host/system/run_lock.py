"""One run at a time per workspace: a kernel lock that a killed run gives back by itself."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from . import locks, private_folder, process
from .failure import Failure


@dataclass(frozen=True)
class Holder:
    """A run in progress; `task` is its current task, empty while it starts."""

    pid: int
    task: str


class Taken(Exception):  # noqa: N818  reads as what happened
    """Another run holds the lock; `str()` names its pid and task."""


class RunLock:
    """The run lock of a workspace, held until this process ends."""

    def __init__(self, workspace: Path) -> None:
        self._workspace = workspace
        self._descriptor = -1

    @property
    def path(self) -> Path:
        """The lock file; it exists from the first run until `doit down`."""
        return private_folder.folder(self._workspace) / "run.lock"

    def take(self, what: str) -> None:
        """Raises Taken at once when another run holds it; Failure if it can't be written."""
        private_folder.make(self._workspace)
        try:
            self._take(what)
        except OSError as error:
            # A full disk, most often: every command needs this file.
            raise Failure(
                f"{self.path} can't be written ({error.strerror}): free space on its disk, or "
                "correct the permissions"
            ) from None

    def _take(self, what: str) -> None:
        descriptor = locks.open_file(self.path)
        if not locks.lock(descriptor):
            run_id, _, task = os.pread(descriptor, 4096, 0).decode(errors="replace").partition(" ")
            os.close(descriptor)
            pid = run_id.split(".")[0]
            raise Taken(
                f"another doit run is in progress in {self._workspace} "
                f"(pid {pid}, {task or 'starting'}): wait for it, or end it with: kill {pid}"
            )
        self._descriptor = descriptor
        if left := os.pread(descriptor, 4096, 0).decode(errors="replace"):
            process.end_left_by(left.split(" ")[0])
        self.note(what)

    def holder(self) -> int | None:
        """The pid of the run in progress, or None; doesn't take the lock."""
        run = self.run()
        return run.pid if run else None

    def run(self) -> Holder | None:
        """The run in progress, from its note; doesn't take the lock, so no run is refused."""
        try:
            note = self.path.read_text(errors="replace")
        except OSError:
            return None
        # A killed run leaves its note.
        run_id, _, task = note.partition(" ")
        return Holder(int(run_id.split(".")[0]), task) if process.is_run(run_id) else None

    def release(self) -> None:
        """Clear the note of this run; the lock itself ends with the process."""
        if self._descriptor >= 0:
            os.ftruncate(self._descriptor, 0)

    def give_back(self) -> None:
        """Let another run begin although this process continues."""
        self.release()
        os.close(self._descriptor)
        self._descriptor = -1

    def note(self, what: str) -> None:
        """Write down this run's current task, for processes that find the lock taken."""
        content = f"{process.run_id()} {what}".encode()[:4096]
        # Overwrite before truncating: an empty file would mean that no run is in progress.
        os.pwrite(self._descriptor, content, 0)
        os.ftruncate(self._descriptor, len(content))
