"""The device: a CPU, or simulated GPUs.

``SIMULATE_GPU=N`` pretends N of them. CUDA_VISIBLE_DEVICES hides them as it hides real ones.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from simulation.flags import args

PYTORCH_VERSION = "0.0.0+simulation"
VRAM = 24 * 1024**3
"""Memory of a simulated GPU, in bytes."""


@dataclass(frozen=True)
class Device:
    """One entry of /system_stats; memory in bytes."""

    name: str
    type: str
    index: int | None
    vram_total: int
    vram_free: int
    torch_vram_total: int
    torch_vram_free: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def memory() -> tuple[int, int]:
    """Total and available memory of the host, in bytes."""
    page = os.sysconf("SC_PAGE_SIZE")
    return os.sysconf("SC_PHYS_PAGES") * page, os.sysconf("SC_AVPHYS_PAGES") * page


def choose_visible() -> None:
    """Apply --cuda-device and --default-device, which overwrite CUDA_VISIBLE_DEVICES."""
    if args.default_device is not None:
        rest = [n for n in range(32) if n != args.default_device]
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, [args.default_device, *rest]))
    if args.cuda_device is not None and args.cuda_device != "all":
        os.environ["CUDA_VISIBLE_DEVICES"] = str(args.cuda_device)


def _installed() -> int:
    """GPUs of this machine: the pretended ones, else those the driver knows."""
    pretended = os.environ.get("SIMULATE_GPU", "")
    if pretended:
        return int(pretended)
    gpus = Path("/proc/driver/nvidia/gpus")
    return len(list(gpus.iterdir())) if gpus.is_dir() else 0


def find() -> Device:
    """The device that this process uses.

    Raises RuntimeError, which ends the start-up, when a GPU is wanted and there is none.
    """
    if args.cpu:
        total, free = memory()
        return Device("cpu", "cpu", None, total, free, total, free)
    installed = _installed()
    if installed == 0:
        raise RuntimeError(
            "Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU and"
            " installed a driver from http://www.nvidia.com/Download/index.aspx"
        )
    # CUDA ends its list at the first entry that names no device.
    wanted = os.environ.get("CUDA_VISIBLE_DEVICES")
    first = "0" if wanted is None else wanted.split(",")[0].strip()
    known = first.startswith(("GPU-", "MIG-")) or (first.isdecimal() and int(first) < installed)
    if not known:
        raise RuntimeError("No CUDA GPUs are available")
    return Device("cuda:0 Simulated GPU : cudaMallocAsync", "cuda", 0, VRAM, VRAM, 0, 0)
