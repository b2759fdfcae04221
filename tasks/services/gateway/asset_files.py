"""Uploaded assets: files in the inputs folder, each named by the blake3 of its bytes.

The name is all there is to know: an asset's id is that of its file, and loaders find it by it. What
the client called it is a second link: workflows name it by that as well.
"""

from __future__ import annotations

import mimetypes
import os
import re
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from blake3 import blake3

HASH = re.compile(r"[0-9a-f]{64}")
ID = re.compile(r"[0-9a-f]{64}(?:\.[a-z0-9]{1,10})?")
SUFFIX = re.compile(r"\.[a-z0-9]{1,10}")
PARTS = ".uploads"
"""The folder of what is on its way; ComfyUI doesn't list it."""
ABANDONED = 86400.0
"""Seconds after which a part was left by a process that ended."""
OTHER = "application/octet-stream"


@dataclass(frozen=True)
class Asset:
    """One file."""

    id: str
    path: Path
    size: int
    created: float

    @property
    def digest(self) -> str:
        return self.id[:64]

    @property
    def content_type(self) -> str:
        return content_type(self.id)


def content_type(name: str) -> str:
    """By the ending of the name."""
    return mimetypes.guess_type(name)[0] or OTHER


class AssetFiles:
    """The assets of one inputs folder. Its functions wait for the disk, and raise OSError."""

    def __init__(self, inputs: Path) -> None:
        self._inputs = inputs

    @property
    def parts(self) -> Path:
        """Where uploads are written, on the same file system as the assets."""
        return self._inputs / PARTS

    def get(self, asset: str) -> Asset | None:
        """The asset of this id; None: there is none."""
        return self._seen(self._inputs / asset) if ID.fullmatch(asset) else None

    def find(self, digest: str) -> Asset | None:
        """An asset with these bytes."""
        return next(self._with(digest), None)

    def place(self, part: Path, digest: str, name: str, kind: str = "") -> tuple[Asset, bool]:
        """Move a file to its place, and whether its bytes are new. `name` and `kind` are what the
        client calls it and its content type: loaders go by the ending."""
        ending = suffix(name, kind)
        known = self.named(digest, ending)
        if known is not None:
            part.unlink()
            return known, False
        path = self._inputs / f"{digest}{ending}"
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
        return self._asset(path), True

    def named(self, digest: str, ending: str) -> Asset | None:
        """An asset with these bytes and this ending; None: there are no such bytes."""
        exact = self.get(f"{digest}{ending}")
        known = exact or self.find(digest)
        if known is None or exact is not None or not ending:
            return known
        path = self._inputs / f"{digest}{ending}"
        self._link(known.path, path)
        return self._asset(path)

    def adopt(self, file: Path) -> Asset:
        """An output as an input of another job."""
        total = blake3()
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                total.update(block)
        path = self._inputs / f"{total.hexdigest()}{suffix(file.name)}"
        if (known := self._seen(path)) is None:
            self._link(file, path)
            known = self._asset(path)
        return known

    def call(self, asset: Asset, name: str) -> None:
        """Let loaders find it by the last part of the client's name too, like what was uploaded
        last by it. Files that are no assets keep their names."""
        path = self._inputs / PurePosixPath(name.replace("\\", "/")).name
        if ID.fullmatch(path.name) or path.name.startswith("."):
            return
        with suppress(FileNotFoundError):
            about = path.lstat()
            is_other = about.st_ino != asset.path.stat().st_ino
            if not is_other or not stat.S_ISREG(about.st_mode) or about.st_nlink == 1:
                return
        self.parts.mkdir(parents=True, exist_ok=True)
        link = self.parts / f"{asset.id}.part"
        self._link(asset.path, link)
        link.replace(path)

    def delete(self, asset: str) -> bool:
        """Whether it was there. Its other names go too."""
        known = self.get(asset)
        if known is None:
            return False
        inode = known.path.stat().st_ino
        with os.scandir(self._inputs) as entries:
            for entry in entries:
                if entry.inode() == inode and not ID.fullmatch(entry.name):
                    Path(entry).unlink(missing_ok=True)
        known.path.unlink(missing_ok=True)
        return True

    def sweep(self) -> None:
        """Remove what ended processes left."""
        for part in self.parts.glob("*.part"):
            if time.time() - part.lstat().st_mtime > ABANDONED:
                part.unlink(missing_ok=True)

    def _with(self, digest: str) -> Iterator[Asset]:
        if not HASH.fullmatch(digest) or not self._inputs.is_dir():
            return
        with os.scandir(self._inputs) as entries:
            for entry in entries:
                if entry.name.startswith(digest) and (asset := self.get(entry.name)):
                    yield asset

    def _link(self, source: Path, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source, target)
        except FileExistsError:
            return
        except OSError:
            # Another file system, or one without links.
            self.parts.mkdir(parents=True, exist_ok=True)
            part = self.parts / f"{target.name}.part"
            shutil.copyfile(source, part)
            part.replace(target)

    def _seen(self, path: Path) -> Asset | None:
        return self._asset(path) if path.is_file() and not path.is_symlink() else None

    def _asset(self, path: Path) -> Asset:
        about = path.stat()
        return Asset(path.name, path, about.st_size, about.st_mtime)


def suffix(name: str, kind: str = "") -> str:
    """The ending that a file of this name, or else of this content type, gets."""
    ending = PurePosixPath(name.replace("\\", "/")).suffix.lower()
    if SUFFIX.fullmatch(ending):
        return ending
    return mimetypes.guess_extension(kind.partition(";")[0].strip()) or ""
