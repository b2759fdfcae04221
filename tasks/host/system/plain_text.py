"""Text without what is meant for a terminal."""

from __future__ import annotations

import re

_SEQUENCE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def without_colours(text: str) -> str:
    """The text without colours and other control sequences of terminals (ECMA-48 CSI)."""
    return _SEQUENCE.sub("", text)
