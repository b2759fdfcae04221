"""What a run has to say beside success and failure; printed at its end, each line once."""

from __future__ import annotations

from collections.abc import Callable

show: Callable[[str], object] = print
"""Prints a line at once; a run's reporter puts its own here."""
_warnings: dict[str, None] = {}
_news: dict[str, None] = {}


def warn(text: str) -> None:
    """Something is missing or could not be proved; not again what a longer line began with."""
    if not any(line.startswith(text) for line in _warnings):
        _warnings[text] = None


def tell(text: str) -> None:
    """Something moved, as it was asked to."""
    _news[text] = None


def go_on(text: str) -> None:
    """What takes long, while it does."""
    show(text)


def move(name: str, before: str | None, after: str | None) -> str:
    """How a commit or version took another's place; either may be None."""
    if before is None:
        return f"+ {name} {after}"
    return f"- {name} {before}" if after is None else f"{name} {before} → {after}"


def warnings() -> list[str]:
    return list(_warnings)


def news() -> list[str]:
    return list(_news)
