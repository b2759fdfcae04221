"""What is wanted of an address, and what it gave."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ..system.failure import Failure
from .partial_file import Version


class Meter(Protocol):
    """Receives the progress of downloads."""

    def begin(self, name: str, total: int | None, done: int = 0) -> None: ...
    def advance(self, name: str, count: int) -> None: ...


@dataclass(frozen=True)
class DownloadRequest:
    """A file to download."""

    label: str
    """Its target: the name in messages; its ending says what the content must be."""
    url: str
    """`${NAME}` in it is expanded when it is requested."""
    sha256: str | None = None
    size: int | None = None
    """Bytes, if known."""


@dataclass(frozen=True)
class Downloaded:
    """The result of a download."""

    sha256: str
    version: Version
    size: int
    pinned: str | None
    """The URL of exactly this version, if the host has one."""


class OtherContent(Failure):
    """The download is complete, but its content isn't the requested one."""

    def __init__(self, message: str, got: Downloaded) -> None:
        super().__init__(message)
        self.got = got
