"""One run at a time per workspace: a kernel lock that a killed run gives back by itself."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from . import locks, private_folder, process
from .failure import Failure
from .program_files import PROGRAM


@dataclass(frozen=True)
class Holder:
    """A run in progress; `task` is its current task, empty while it starts."""

    pid: int
    task: str


ENDED = " ending"
"""How the note of a run ends that has nothing left to do, and left nothing."""
NAMED_WITHIN = 1.0
"""Seconds that a run may take between getting the lock and noting its name."""
CHECK_EVERY = 0.02
"""Seconds between two looks at the note."""


def _read(descriptor: int) -> str:
    return os.pread(descriptor, 4096, 0).decode(errors="replace")


def _holder(note: str) -> Holder | None:
    """Who wrote a note; None when that process has ended, since a killed run leaves its note."""
    run_id, _, task = note.partition(" ")
    if not process.is_run(run_id):
        return None
    return Holder(int(run_id.split(".")[0]), task)


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
            holder = self._named(descriptor)
            os.close(descriptor)
            raise Taken(
                f"another {PROGRAM} run is in progress in {self._workspace} "
                f"(pid {holder.pid}, {holder.task}): wait for it, or end it with: kill {holder.pid}"
                if holder
                else f"another {PROGRAM} run begins or ends in {self._workspace}: try again"
            )
        self._descriptor = descriptor
        left = _read(descriptor)
        # Before anything else: who finds the lock taken names us.
        self.note(what)
        if left and not left.endswith(ENDED):
            process.end_left_by(left.partition(" ")[0])

    def _named(self, descriptor: int) -> Holder | None:
        """The holder, who may be about to write down its name."""
        deadline = time.monotonic() + NAMED_WITHIN
        while (holder := _holder(_read(descriptor))) is None and time.monotonic() < deadline:
            time.sleep(CHECK_EVERY)
        return holder

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
        return None if note.endswith(ENDED) else _holder(note)

    def ended(self) -> float | None:
        """When the last run ended, in seconds since the epoch; None: none has, or one is on."""
        try:
            with self.path.open("rb") as file:
                note, changed = file.read(4096), os.fstat(file.fileno()).st_mtime
        except OSError:
            return None
        return changed if note.endswith(ENDED.encode()) else None

    def release(self) -> None:
        """Note that this run is over; the lock itself ends with the process."""
        if self._descriptor >= 0:
            self.note(ENDED.strip())

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
