"""Git LFS: a repository has a pointer instead of a large file, which is stored elsewhere.

https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..system.files import file_digest
from ..system.program_files import PROGRAM
from ..system.units import size

LONGEST = 1024
"""The specification says that a pointer has fewer bytes."""
SHOWN = 3
_POINTER = re.compile(
    rb"version https://git-lfs\.github\.com/spec/v1\n(?:ext-.*\n)*"
    rb"oid sha256:([0-9a-f]{64})\nsize (\d+)\n?"
)


@dataclass(frozen=True)
class Pointer:
    """The hash of a pointer's file, and its size in bytes."""

    sha256: str
    size: int


@dataclass(frozen=True)
class Large:
    """The large files of a checkout: fetched ones and missing ones."""

    fetched: int = 0
    left: Mapping[str, int] = field(default_factory=dict)
    """File that is still a pointer → size of the real file in bytes."""
    why: str = ""
    """Why git-lfs did not fetch the missing ones; empty: it isn't installed."""

    def __bool__(self) -> bool:
        return bool(self.fetched or self.left)

    def below(self, path: str) -> Large:
        """The same with paths relative to a checkout that contains this one at `path`."""
        return Large(self.fetched, {f"{path}/{k}": v for k, v in self.left.items()}, self.why)

    def __add__(self, other: Large) -> Large:
        return Large(
            self.fetched + other.fetched, {**self.left, **other.left}, self.why or other.why
        )

    def __str__(self) -> str:
        count = len(self.left)
        names, more = list(self.left)[:SHOWN], count - SHOWN
        pointers = "1 file is a Git LFS pointer"
        if count > 1:
            pointers = f"{count} files are Git LFS pointers"
        return (
            f"{pointers} only, {size(sum(self.left.values()))} are missing: "
            f"{', '.join(names)}{f' and {more} more' if more > 0 else ''}"
        )

    @property
    def mend(self) -> str:
        """Why the missing ones were not fetched, or what to do."""
        return self.why or f"git-lfs isn't installed: apt install git-lfs, then run {PROGRAM} again"


def parse(content: bytes) -> Pointer | None:
    """The pointer in this content; None if it isn't one."""
    match = _POINTER.fullmatch(content) if len(content) < LONGEST else None
    return Pointer(match[1].decode(), int(match[2])) if match else None


def pointers(checkout: Path, names: Iterable[str]) -> dict[str, Pointer]:
    """The files that are pointers, regardless of .gitattributes."""
    pointers_by_name = {}
    for name in names:
        path = checkout / name
        try:
            status = path.lstat()
            small = path.is_file() and not path.is_symlink() and status.st_size < LONGEST
            pointer = parse(path.read_bytes()) if small else None
        except OSError:
            continue
        if pointer:
            pointers_by_name[name] = pointer
    return pointers_by_name


def fill_in(storage: Path, checkout: Path, listed: Mapping[str, Pointer]) -> dict[str, Pointer]:
    """Replace pointers by their files from git-lfs's storage; return those that it doesn't have."""
    missing = {}
    for name, pointer in listed.items():
        oid = pointer.sha256
        stored = storage / "objects" / oid[:2] / oid[2:4] / oid
        if stored.is_file() and stored.stat().st_size == pointer.size:
            shutil.copyfile(stored, checkout / name)
        else:
            missing[name] = pointer
    return missing


def stands_for(content: bytes, file: Path) -> bool:
    """Whether this content is the pointer of `file`."""
    pointer = parse(content)
    try:
        if pointer is None or file.stat().st_size != pointer.size:
            return False
        return file_digest(file) == pointer.sha256
    except OSError:
        return False
