"""The one error that ends a task: a sentence for the person, a log for the rest."""

from __future__ import annotations

from pathlib import Path

from .redaction import redact


class Failure(Exception):  # noqa: N818  the field's word for a task that did not succeed
    """A task did not succeed; `str()` is one line: which item, what happened, what to do.

    A message may quote git or uv; it goes to terminals and receipts, so no password stays in it.
    """

    def __init__(self, message: str, log: Path | None = None) -> None:
        super().__init__(redact(message))
        self.log = log

    def with_log(self) -> str:
        """The line as it is printed, and below it the path of the log."""
        return f"{self}\n  log: {self.log}" if self.log else str(self)
