"""Warnings and news of a run, printed at its end."""

from __future__ import annotations

from collections.abc import Callable


class Messages:
    """Keeps each line once. Safe to use from several threads: adding a dict key is atomic."""

    def __init__(self, show: Callable[[str], object] = print) -> None:
        self.show = show
        """Prints a line immediately."""
        self._warnings: dict[str, None] = {}
        self._news: dict[str, None] = {}

    def warn(self, text: str) -> None:
        """Queue a warning for the end of the run; skip it if a longer one starts the same."""
        if not any(line.startswith(text) for line in list(self._warnings)):
            self._warnings[text] = None

    def tell(self, text: str) -> None:
        """Queue a line about an intended change."""
        self._news[text] = None

    @property
    def warnings(self) -> list[str]:
        return list(self._warnings)

    @property
    def news(self) -> list[str]:
        return list(self._news)


def describe_move(name: str, before: str | None, after: str | None) -> str:
    """One line for a commit or version that replaced another; None means there is none."""
    if before is None:
        return f"+ {name} {after}"
    return f"- {name} {before}" if after is None else f"{name} {before} → {after}"
