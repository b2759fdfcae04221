"""Sizes and durations as people read them."""

from __future__ import annotations


def size(count: float) -> str:
    """Bytes in powers of 1000, as for disks and networks: 545.4 MB."""
    for unit, digits in (("B", 0), ("kB", 0), ("MB", 1), ("GB", 1)):
        if round(count, digits) < 1000:
            return f"{count:.{digits}f} {unit}"
        count /= 1000
    return f"{count:.2f} TB"


def gib(count: int) -> str:
    """Bytes in powers of 1024, as for memory in nvidia-smi: 23.7 GiB."""
    return f"{count / 2**30:.1f} GiB"


def duration(seconds: float) -> str:
    """Seconds in their two largest units: 42s, 3m 5s, 2h 10m, 5d 3h."""
    left = int(seconds)
    found: list[str] = []
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        if left >= length or found or length == 1:
            found.append(f"{left // length}{unit}")
            left %= length
    return " ".join(found[:2])
