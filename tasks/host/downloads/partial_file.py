"""An unfinished download: `NAME.part`, and beside it `NAME.part.json` that says what is in it.

A process that works on the file holds a kernel lock on it, which ends with the process. Bytes are
written before they are recorded in the note, so the note never claims too much. After a power
failure it may, so a note from before the last boot counts only if the sha256 is known.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..system import files, locks, private_folder
from .byte_ranges import Range, Ranges

NOTE_EVERY = 4 << 20
"""Bytes between two notes."""
NOTE_AFTER = 1.0
"""Seconds after which a note is written anyway."""


@dataclass(frozen=True)
class Version:
    """Which content a server has at a URL, as far as it states that."""

    size: int | None = None
    etag: str | None = None
    modified: str | None = None

    @property
    def validator(self) -> str | None:
        """The value for If-Range: a strong ETag, else the date."""
        if self.etag and not self.etag.startswith("W/"):
            return self.etag
        return self.modified

    def fits(self, other: Version) -> bool:
        """Whether both are the same content; False if nothing tells.

        The size of a chunked answer is known only at its end. A weak ETag doesn't mean equal bytes,
        so the dates, if there are any, must be equal too.
        """
        if None not in (self.size, other.size) and self.size != other.size:
            return False
        same_date = self.modified == other.modified
        if self.etag and other.etag:
            weak = "W/" in (self.etag[:2], other.etag[:2])
            same = self.etag.removeprefix("W/") == other.etag.removeprefix("W/")
            return same and (same_date or not weak)
        return same_date and self.modified is not None


class Part:
    """The partial file of a download, open and locked."""

    def __init__(self, path: Path, descriptor: int, trusted: bool) -> None:
        self.path = path
        self.descriptor = descriptor
        self.version: Version | None = None
        self.have = Ranges()
        self.resumed = False
        self._lock = threading.Lock()
        self._unnoted, self._noted_at = 0, time.monotonic()
        self._noted = self._note.exists()
        self._read_note(trusted)

    @property
    def _note(self) -> Path:
        return self.path.with_name(f"{self.path.name}.json")

    def _read_note(self, trusted: bool) -> None:
        if not self._noted:
            return
        note = files.read_receipt(self._note, version=dict, have=list, boot=str)
        if not note or not (trusted or note["boot"] == _boot()):
            return
        with contextlib.suppress(TypeError, ValueError):
            version = Version(**note["version"])
            have = Ranges([(int(start), int(end)) for start, end in note["have"]])
            length = os.fstat(self.descriptor).st_size
            if version.size and all(0 <= a <= b <= min(length, version.size) for a, b in have):
                self.version, self.have, self.resumed = version, have, have.total > 0

    def restart(self, version: Version) -> None:
        """Discard the content, which is outdated or of an unknown version."""
        with self._lock:
            self._forget()
            if os.fstat(self.descriptor).st_size:
                os.ftruncate(self.descriptor, 0)
            self.version = version

    def _forget(self) -> None:
        if self._noted:
            self._note.unlink(missing_ok=True)
            self._noted = False
        self.version, self.have, self.resumed, self._unnoted = None, Ranges(), False, 0

    def write(self, data: bytes, position: int) -> None:
        """Raises OSError (disk full, quota, …)."""
        view = memoryview(data)
        while view:
            written = os.pwrite(self.descriptor, view, position)
            view, position = view[written:], position + written
        with self._lock:
            self.have.add(position - len(data), position)
            self._unnoted += len(data)
            if self._unnoted >= NOTE_EVERY or time.monotonic() - self._noted_at > NOTE_AFTER:
                self._write_note()

    def missing(self, size: int) -> list[Range]:
        with self._lock:
            return self.have.missing(size)

    @property
    def prefix(self) -> int:
        with self._lock:
            return self.have.prefix

    def note(self) -> None:
        """Record the content, for the process that resumes it."""
        with self._lock:
            if self._unnoted:
                self._write_note()

    def _write_note(self) -> None:
        self._unnoted, self._noted_at = 0, time.monotonic()
        # Without a validator it can't be resumed.
        if self.version is None or self.version.validator is None or not self.version.size:
            return
        value: dict[str, Any] = {
            "version": asdict(self.version),
            "have": list(self.have),
            "boot": _boot(),
        }
        files.write_text(self._note, json.dumps(value), durable=False)
        self._noted = True

    def keep(self, place: Path) -> None:
        """Rename the complete file to its final name. Raises OSError."""
        os.fchmod(self.descriptor, 0o444)
        os.fdatasync(self.descriptor)
        if not _same(self.descriptor, self.path):
            raise OSError(
                None, "another process replaced it while it was downloaded", str(self.path)
            )
        self.path.replace(place)
        self._forget()

    def discard(self) -> None:
        self._forget()
        if _same(self.descriptor, self.path):
            self.path.unlink(missing_ok=True)


@contextlib.contextmanager
def opened(path: Path, trusted: bool) -> Iterator[Part]:
    """Open and lock a part; wait while another process works on it.

    `trusted`: the content will be compared with a known sha256. If locks on the volume don't exist
    or may not reach other machines, each machine has its own part. Raises OSError.
    """
    with contextlib.ExitStack() as stack:
        shared = locks.reach_other_machines(path.parent)
        try:
            descriptor = stack.enter_context(_locked(path, keep=shared))
        except _NoLocks:
            shared = False
        if not shared:
            path = stack.enter_context(_own_part(path))
            descriptor = locks.open_file(path, 0o644)
            stack.callback(os.close, descriptor)
        part = Part(path, descriptor, trusted)
        try:
            yield part
        finally:
            if part.have.total:
                part.note()
            elif _same(descriptor, path):
                path.unlink(missing_ok=True)


def free(path: Path) -> bool:
    """Whether no process works on a part, as far as locks tell."""
    if path.name.endswith(f".{_here()}.part"):
        lock = _own_lock(path)
        return not lock.exists() or _idle(lock)
    return _idle(path)


def _idle(path: Path) -> bool:
    try:
        with path.open("r+b") as file:
            return locks.lock(file.fileno())
    except OSError:
        return False


class _NoLocks(Exception):  # noqa: N818  reads as what it is
    pass


def _open_locked(path: Path) -> int:
    while True:
        descriptor = locks.open_file(path, 0o644)
        try:
            locks.lock(descriptor, wait=True)
        except OSError as error:
            if os.fstat(descriptor).st_size == 0:
                path.unlink(missing_ok=True)
            os.close(descriptor)
            raise _NoLocks from error
        # The previous holder may have finished and renamed it.
        if _same(descriptor, path):
            return descriptor
        os.close(descriptor)


@contextlib.contextmanager
def _locked(path: Path, *, keep: bool) -> Iterator[int]:
    """Lock a file; unless `keep`, remove it at the end if it is empty."""
    descriptor = _open_locked(path)
    try:
        yield descriptor
    finally:
        if not keep and os.fstat(descriptor).st_size == 0 and _same(descriptor, path):
            path.unlink(missing_ok=True)
        os.close(descriptor)


@contextlib.contextmanager
def _own_part(path: Path) -> Iterator[Path]:
    """A part of this machine and user, for a volume whose locks don't reach other machines.

    Processes of this user on this machine lock a file in the private folder instead. If that has no
    locks either, each process has its own part.
    """
    own = path.with_name(f"{path.stem}.{_here()}.part")
    lock = _own_lock(own)
    with contextlib.ExitStack() as stack:
        try:
            private_folder.make(path.parent)
            stack.enter_context(_locked(lock, keep=False))
        except _NoLocks:
            own = path.with_name(f"{path.stem}.{uuid.uuid4().hex}.part")
        yield own


def _here() -> str:
    """An id of the machine or container, whose processes share the private folders."""
    try:
        namespace = Path("/proc/self/ns/mnt").stat().st_ino
    except OSError:
        namespace = 0
    return f"{platform.node()}-{os.getuid()}-{namespace}"


def _own_lock(own: Path) -> Path:
    return private_folder.folder(own.parent) / f"{own.name}.lock"


def _same(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except OSError:
        return False


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
