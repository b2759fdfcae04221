"""The one error that ends a task: a sentence for the person, a log for the rest."""

from __future__ import annotations

from pathlib import Path


class Failure(Exception):  # noqa: N818  the field's word for a task that did not succeed
    """A task did not succeed; `str()` is one line: which item, what happened, what to do."""

    def __init__(self, message: str, log: Path | None = None) -> None:
        super().__init__(message)
        self.log = log
