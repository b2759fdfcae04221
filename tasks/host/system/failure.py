"""The one error that ends a task: a line for people, and a log with the details."""

from __future__ import annotations

from pathlib import Path

from .redaction import redact


class Failure(Exception):  # noqa: N818  the usual word for it
    """A task failed; `str()` is one line: which item, what happened, what to do.

    Messages may quote git or uv, and are shown and stored, so passwords in them are masked.
    """

    def __init__(self, message: str, log: Path | None = None) -> None:
        super().__init__(redact(message))
        self.log = log

    def with_log(self) -> str:
        """The line as it is printed, and below it the path of the log."""
        return f"{self}\n  log: {self.log}" if self.log else str(self)
