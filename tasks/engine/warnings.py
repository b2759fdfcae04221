"""What a run has to say beside success and failure; printed at its end, each line once."""

from __future__ import annotations

_texts: dict[str, None] = {}


def warn(text: str) -> None:
    _texts[text] = None


def collected() -> list[str]:
    return list(_texts)
