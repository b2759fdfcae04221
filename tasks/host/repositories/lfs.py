"""Git LFS: a repository holds a pointer in place of a large file, which lies elsewhere.

https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..system.units import size

LONGEST = 1024
"""Bytes of a pointer, by the specification less than this."""
SHOWN = 3
_POINTER = re.compile(
    rb"version https://git-lfs\.github\.com/spec/v1\n(?:ext-.*\n)*"
    rb"oid sha256:([0-9a-f]{64})\nsize (\d+)\n?"
)


@dataclass(frozen=True)
class Pointer:
    """What a pointer says of its file; size in bytes."""

    sha256: str
    size: int


@dataclass(frozen=True)
class Large:
    """What became of the large files of a checkout."""

    fetched: int = 0
    left: Mapping[str, int] = field(default_factory=dict)
    """The pointers that stand there in place of their files, each with its file's bytes."""
    why: str = ""
    """Why git-lfs did not fetch them; empty: it isn't installed."""

    def __bool__(self) -> bool:
        return bool(self.fetched or self.left)

    def below(self, path: str) -> Large:
        """The same, seen from a checkout that has this one at `path`."""
        return Large(self.fetched, {f"{path}/{k}": v for k, v in self.left.items()}, self.why)

    def __add__(self, other: Large) -> Large:
        return Large(
            self.fetched + other.fetched, {**self.left, **other.left}, self.why or other.why
        )

    def __str__(self) -> str:
        names, more = list(self.left)[:SHOWN], len(self.left) - SHOWN
        what = (
            "1 file is a Git LFS pointer"
            if len(self.left) == 1
            else (f"{len(self.left)} files are Git LFS pointers")
        )
        return (
            f"{what} only, {size(sum(self.left.values()))} are missing: "
            f"{', '.join(names)}{f' and {more} more' if more > 0 else ''}"
        )

    @property
    def mend(self) -> str:
        return self.why or "git-lfs isn't installed: apt install git-lfs, then run doit again"


def parse(content: bytes) -> Pointer | None:
    """The pointer that this is, None for anything else."""
    found = _POINTER.fullmatch(content) if len(content) < LONGEST else None
    return Pointer(found[1].decode(), int(found[2])) if found else None


def pointers(checkout: Path, names: Iterable[str]) -> dict[str, Pointer]:
    """Those of the files that are pointers, whatever attributes say."""
    found = {}
    for name in names:
        path = checkout / name
        try:
            status = path.lstat()
            small = path.is_file() and not path.is_symlink() and status.st_size < LONGEST
            pointer = parse(path.read_bytes()) if small else None
        except OSError:
            continue
        if pointer:
            found[name] = pointer
    return found


def put(storage: Path, checkout: Path, wanted: Mapping[str, Pointer]) -> dict[str, Pointer]:
    """Put what git-lfs has in its storage in place of pointers; those that it hasn't."""
    left = {}
    for name, pointer in wanted.items():
        oid = pointer.sha256
        held = storage / "objects" / oid[:2] / oid[2:4] / oid
        if held.is_file() and held.stat().st_size == pointer.size:
            shutil.copyfile(held, checkout / name)
        else:
            left[name] = pointer
    return left


def stands_for(content: bytes, file: Path) -> bool:
    """Whether this is the pointer of that very file."""
    pointer = parse(content)
    try:
        if pointer is None or file.stat().st_size != pointer.size:
            return False
        digest = hashlib.sha256()
        with file.open("rb") as opened:
            while block := opened.read(1 << 20):
                digest.update(block)
        return digest.hexdigest() == pointer.sha256
    except OSError:
        return False
