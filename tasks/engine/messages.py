"""What a run says beside success and failure: warnings and news, printed at its end."""

from __future__ import annotations

from collections.abc import Callable


class Messages:
    """Each line is said once. Safe to use from several threads: a dict takes a key as a whole."""

    def __init__(self, show: Callable[[str], object] = print) -> None:
        self.show = show
        """Prints a line at once."""
        self._warnings: dict[str, None] = {}
        self._news: dict[str, None] = {}

    def warn(self, text: str) -> None:
        """Queue a warning for the end of the run; skip it if a longer one starts the same."""
        if not any(line.startswith(text) for line in list(self._warnings)):
            self._warnings[text] = None

    def tell(self, text: str) -> None:
        """Queue a line about something that changed as it was asked to."""
        self._news[text] = None

    @property
    def warnings(self) -> list[str]:
        return list(self._warnings)

    @property
    def news(self) -> list[str]:
        return list(self._news)


def describe_move(name: str, before: str | None, after: str | None) -> str:
    """How one commit or version replaced another; either may be None."""
    if before is None:
        return f"+ {name} {after}"
    return f"- {name} {before}" if after is None else f"{name} {before} → {after}"
