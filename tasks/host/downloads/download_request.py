"""What is wanted of an address, and what it gave."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ..system.failure import Failure
from .partial_file import Version


class Meter(Protocol):
    """Counts how far downloads are."""

    def begin(self, name: str, total: int | None, done: int = 0) -> None: ...
    def advance(self, name: str, count: int) -> None: ...


@dataclass(frozen=True)
class DownloadRequest:
    """A file to download."""

    label: str
    """Its target; what messages call it, and whose ending says what it is to be."""
    url: str
    """`${NAME}` in it is filled in when it is asked for."""
    sha256: str | None = None
    size: int | None = None
    """Bytes, where they are known beforehand."""


@dataclass(frozen=True)
class Downloaded:
    """What the address gave."""

    sha256: str
    version: Version
    size: int
    pinned: str | None
    """The address of exactly this version, where the host has one."""


class OtherContent(Failure):
    """The address gave, whole, another content than the one that was wanted."""

    def __init__(self, message: str, got: Downloaded) -> None:
        super().__init__(message)
        self.got = got
