"""GPUs, as far as they can be seen without a driver call."""

from __future__ import annotations

import re
from pathlib import Path


def count(devices: Path = Path("/dev")) -> int:
    """How many NVIDIA GPUs this machine shows, by their device nodes.

    Opens nothing, so an image build and `doit list` can ask. A container that was given
    GPU 3 alone has /dev/nvidia3, and CUDA calls it 0: the number counts, not the names.
    """
    try:
        return sum(1 for node in devices.iterdir() if re.fullmatch(r"nvidia\d+", node.name))
    except OSError:
        return 0


def driver_present(devices: Path = Path("/dev")) -> bool:
    """Whether programs can use a GPU here."""
    return (devices / "nvidiactl").exists()
