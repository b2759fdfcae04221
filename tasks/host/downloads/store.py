"""The store of downloads: files named by their sha256, which several machines may share.

<sha256>            a file, which never changes
<sha256>.json       its size and mtime when it was verified
<digest>.url.json   the content that a URL gave, and its version
<name>.part         an unfinished download
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from ..storage.disk_space import DiskSpace
from ..system import files, stat_cache
from ..system.failure import Failure
from . import content_check, partial_file, remote_file
from .download import download
from .download_request import Downloaded, DownloadRequest, Meter, OtherContent
from .partial_file import Version
from .web import Web

NAME = re.compile(r"[0-9a-f]{64}")


class Store:
    """A folder of verified files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def place(self, sha256: str) -> Path:
        return self.folder / sha256

    def holds(self, sha256: str) -> tuple[int, int] | None:
        """Size and mtime (whole seconds) of a file that is unchanged since it was verified."""
        now = stamp(self.place(sha256))
        verified = files.read_receipt(self._receipt(sha256), size=int, mtime=int)
        return now if now and now == (verified.get("size"), verified.get("mtime")) else None

    def verify(self, sha256: str, meter: Meter, name: str) -> bool:
        """Hash a file again and record the result. Raises OSError when it can't be read."""
        before = stamp(self.place(sha256))
        right = before is not None and hash_file(self.place(sha256), meter, name) == sha256
        if right and stamp(self.place(sha256)) == before:
            # A store may be a read-only volume.
            with contextlib.suppress(OSError):
                self._note(sha256)
        else:
            # A new mtime makes other machines that share the store verify it again.
            with contextlib.suppress(OSError):
                self._receipt(sha256).unlink(missing_ok=True)
                os.utime(self.place(sha256), (0, 0))
        return right

    def fetch(
        self, request: DownloadRequest, web: Web, space: DiskSpace, meter: Meter
    ) -> Downloaded:
        """Download a file, unless another process does so meanwhile. Raises Failure, OSError."""
        name = request.sha256 or files.digest(request.url)
        before = stat_cache.stamp(self._url(request.url))
        with partial_file.opened(
            self.folder / f"{name}.part", request.sha256 is not None
        ) as downloading:
            waited = stat_cache.stamp(self._url(request.url)) != before
            if stored := self._stored(request, web, meter, waited):
                return stored
            self._refuse_known(request, web)
            try:
                got = download(request, downloading, web, space, meter)
            except OtherContent as other:
                known = files.read_receipt(self._url(request.url), sha256=str)
                twice = bool(known) and known["sha256"] == other.got.sha256
                self._remember(request.url, other.got, twice=twice)
                raise
            self._remember(request.url, got)
            if self.holds(got.sha256):
                downloading.discard()
            else:
                downloading.keep(self.place(got.sha256))
                self._note(got.sha256)
        return got

    def adopt(self, file: Path, sha256: str) -> None:
        """Move a file with this content into the store. Raises OSError."""
        if self.holds(sha256):
            file.unlink()
            return
        try:
            file.rename(self.place(sha256))
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            with partial_file.opened(self.folder / f"{sha256}.part", True) as copying:
                copying.restart(Version())
                with (
                    file.open("rb") as original,
                    open(copying.descriptor, "wb", closefd=False) as to,
                ):
                    shutil.copyfileobj(original, to, 1 << 20)
                copying.keep(self.place(sha256))
            file.unlink()
        self._note(sha256)

    def parts(self) -> Iterator[Path]:
        """Unfinished downloads that no process works on, and their notes."""
        for path in sorted(self.folder.glob("[!.]*.part")):
            if partial_file.free(path):
                yield path
                note = path.with_name(f"{path.name}.json")
                if note.exists():
                    yield note

    def _receipt(self, sha256: str) -> Path:
        return self.folder / f"{sha256}.json"

    def _note(self, sha256: str) -> None:
        now = stamp(self.place(sha256))
        if now:
            _write(self._receipt(sha256), {"size": now[0], "mtime": now[1]})

    def _stored(
        self, request: DownloadRequest, web: Web, meter: Meter, waited: bool
    ) -> Downloaded | None:
        """The file if the store has it; without a known sha256 this asks the server.

        `waited`: another process has just fetched it; that is enough if the server has no versions.
        """
        if request.sha256:
            held = self.holds(request.sha256)
            return Downloaded(request.sha256, Version(held[0]), held[0], None) if held else None
        record = files.read_receipt(self._url(request.url), sha256=str, version=dict)
        if not record or not NAME.fullmatch(record["sha256"]):
            return None
        try:
            version = Version(**record["version"])
        except TypeError:
            return None
        if not stamp(self.place(record["sha256"])):
            return None
        now = remote_file.ask(request.url, request.label, web)
        same = now.version.fits(version) or (waited and now.version == version)
        if now.sha256 != record["sha256"] and not same:
            return None
        # Without a receipt, a killed run had just renamed it, or it has changed.
        if self.holds(record["sha256"]) or self.verify(record["sha256"], meter, request.label):
            return Downloaded(record["sha256"], now.version, version.size or 0, now.pinned)
        return None

    def _refuse_known(self, request: DownloadRequest, web: Web) -> None:
        """Raise Failure if the URL gave the same wrong content twice, and still has that version.

        Once, the network may have garbled it; but not every run downloads perhaps 20 GB again.
        """
        record = files.read_receipt(self._url(request.url), sha256=str, version=dict, twice=bool)
        wrong = bool(record) and record["twice"] and record["sha256"] != request.sha256
        if request.sha256 and wrong:
            with contextlib.suppress(TypeError):
                now = remote_file.ask(request.url, request.label, web).version
                if now.fits(Version(**record["version"])):
                    why = content_check.mismatch(record["sha256"], request.sha256, request.label)
                    raise Failure(f"{request.label}: {why}")

    def _url(self, url: str) -> Path:
        return self.folder / f"{files.digest(url)}.url.json"

    def _remember(self, url: str, got: Downloaded, *, twice: bool = False) -> None:
        about = {"sha256": got.sha256, "version": asdict(got.version), "twice": twice}
        _write(self._url(url), about)


def stamp(file: Path | str) -> tuple[int, int] | None:
    """Size and mtime in whole seconds, which every file system keeps; None: no file."""
    try:
        status = os.stat(file)  # noqa: PTH116  for 5,000 models
    except OSError:
        return None
    return status.st_size, int(status.st_mtime)


def hash_file(file: Path, meter: Meter, name: str) -> str:
    """sha256 of a file, at the disk's speed. Raises OSError."""
    total, block = hashlib.sha256(), bytearray(1 << 20)
    with file.open("rb", buffering=0) as opened:
        meter.begin(name, os.fstat(opened.fileno()).st_size)
        while count := opened.readinto(block):
            total.update(memoryview(block)[:count])
            meter.advance(name, count)
    return total.hexdigest()


def _write(path: Path, receipt: dict[str, object]) -> None:
    # After a power failure it is found out again.
    files.write_receipt(path, receipt, durable=False)
