"""Sizes such as 24G and 512M."""

from __future__ import annotations

import re

_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
SIZE = r"^([1-9]\d{0,5})([KMGT])$"


def check_size(text: str) -> str:
    """A whole number and K, M, G or T, which are powers of 1024. Raises ValueError."""
    if not re.fullmatch(SIZE, text):
        raise ValueError("must be a size: a whole number with K, M, G or T, such as 24G or 512M")
    return text


def in_bytes(size: str) -> int:
    """The bytes of a checked size."""
    return int(size[:-1]) * _UNITS[size[-1]]


def shown(count: int) -> str:
    """Bytes as a size, in the largest unit that divides them."""
    unit = next((unit for unit in "TGM" if count % _UNITS[unit] == 0), "K")
    return f"{count // _UNITS[unit]}{unit}"
