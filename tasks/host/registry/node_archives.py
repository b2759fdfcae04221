"""The registry's archives, kept in the user's cache by their sha256."""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from ...spec import Archive, Pin
from ...spec.problems import shown
from ..downloads.web import Answer
from ..system import files, user_cache
from ..system.failure import Failure
from ..system.program_files import PROGRAM
from ..system.progress import OnProgress
from ..system.units import size
from .registry_api import Registry, Version

LONGEST = 2 << 30
"""Bytes of an archive."""
PATIENCE = 1800.0
"""Seconds for one."""


@dataclass(frozen=True)
class Fetched:
    """An archive in the cache."""

    file: Path
    sha256: str
    size: int


def folder() -> Path:
    return user_cache.folder() / "archives"


def fetch(registry: Registry, name: str, version: Version, on_progress: OnProgress) -> Fetched:
    """A version's archive: from the cache, since a version never changes, else downloaded.

    Raises Failure.
    """
    note = folder() / f"{files.digest(version.url)}.json"
    noted = files.read_receipt(note, sha256=str, size=int)
    place = folder() / f"{noted.get('sha256')}.zip"
    if noted and files.file_digest(place) == noted["sha256"]:
        return Fetched(place, noted["sha256"], noted["size"])
    fetched = _download(registry, f"{name} {version.number}", version.url, on_progress)
    files.write_receipt(note, {"sha256": fetched.sha256, "size": fetched.size})
    return fetched


def locked(registry: Registry, pin: Pin, archive: Archive, on_progress: OnProgress) -> Path:
    """The archive that machine.lock names: from the cache, else downloaded.

    Raises Failure, also when the registry serves another one by now.
    """
    place = folder() / f"{archive.sha256}.zip"
    if files.file_digest(place) == archive.sha256:
        return place
    files.remove(place)
    label = f"{archive.id} {archive.version}"
    fetched = _download(registry, label, pin.url, on_progress)
    if fetched.sha256 != archive.sha256:
        raise Failure(
            f"{label}: {pin.url} has changed: its sha256 is {fetched.sha256}, and machine.lock has "
            f"{archive.sha256}; if you trust the new one, remove the node's entry from the lock: "
            f"the next {PROGRAM} lock resolves it anew"
        )
    return fetched.file


def _download(registry: Registry, label: str, url: str, on_progress: OnProgress) -> Fetched:
    _check_address(registry, label, url)
    folder().mkdir(parents=True, exist_ok=True)
    # Several runs may fetch the same one; each has a file of its own.
    part = folder() / f".{os.getpid()}.{hashlib.sha256(label.encode()).hexdigest()[:16]}.part"
    with files.removed_on_failure(part):
        sha256, length = registry.web.ask(url, label, lambda a: _save(a, part, label, on_progress))
        place = folder() / f"{sha256}.zip"
        files.sync(part)
        files.replace(part, place)
    return Fetched(place, sha256, length)


def _check_address(registry: Registry, label: str, url: str) -> None:
    """An archive comes over https, or from a registry on this machine. Raises Failure."""
    parts = urlsplit(url)
    at_home = parts.hostname in ("127.0.0.1", "localhost", "::1") and registry.is_local
    if parts.scheme != "https" and not (parts.scheme == "http" and at_home):
        raise Failure(f"{label}: its archive isn't at an address of https://: {shown(url, 200)}")


def _save(answer: Answer, part: Path, label: str, on_progress: OnProgress) -> tuple[str, int]:
    """sha256 and size of what an answer sends, saved as `part`. Raises Failure, OSError."""
    total, length, deadline = hashlib.sha256(), 0, time.monotonic() + PATIENCE
    announced = int(answer.header("Content-Length") or 0)
    with part.open("wb") as file:
        for chunk in answer.chunks():
            length += len(chunk)
            if max(length, announced) > LONGEST or time.monotonic() > deadline:
                raise Failure(f"{label}: its archive has more than {size(LONGEST)}, or is too slow")
            total.update(chunk)
            file.write(chunk)
            on_progress(100 * length / announced if announced else None, size(length))
    return total.hexdigest(), length
