"""GPUs: their number, without a driver call, and what the driver's library (NVML) reports."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from . import process
from .failure import Failure
from .program_files import PROGRAM
from .units import gib

DEVICES = Path("/dev")
NO_GPU = (
    "no GPU here (no /dev/nvidia0): install the NVIDIA driver; a container needs --gpus all; in an "
    f"image build use {PROGRAM} build; without a GPU set instances.cpu_only: true"
)


def count(devices: Path = DEVICES) -> int:
    """The number of NVIDIA GPUs, by their device nodes; opens none of them.

    A container that has only GPU 3 has /dev/nvidia3, which CUDA calls 0: only the number of nodes
    matters, not their names.
    """
    try:
        return sum(1 for node in devices.iterdir() if re.fullmatch(r"nvidia\d+", node.name))
    except OSError:
        return 0


def driver_present(devices: Path = DEVICES) -> bool:
    """Whether the NVIDIA driver is loaded here."""
    return (devices / "nvidiactl").exists()


@dataclass(frozen=True)
class Process:
    """A process that uses a GPU."""

    pid: int
    """The host's pid; in a container the same process has another pid, or none."""
    memory: int | None
    """Bytes of GPU memory; None: the driver doesn't report it."""
    computes: bool
    """False: it only draws."""

    def __str__(self) -> str:
        size = "" if self.memory is None else f", {gib(self.memory)}"
        command = self.command
        if command is None:
            return f"pid {self.pid}, not visible from here{size}"
        return f"pid {self.pid} ({command}{size})"

    @property
    def command(self) -> str | None:
        """Its command line, cut to 100 characters; None when it isn't visible here."""
        command = process.command_of(self.pid)
        return command and command[:100]


@dataclass(frozen=True)
class Gpu:
    """One GPU, as reported by NVML."""

    index: int
    """In nvidia-smi's order, which is CUDA's with CUDA_DEVICE_ORDER=PCI_BUS_ID."""
    uuid: str = ""
    name: str = ""
    total: int = 0
    """Bytes of memory; 0: it has none of its own, or the driver doesn't report it."""
    used: int = 0
    """Bytes in use by all processes."""
    processes: tuple[Process, ...] = ()
    mode: str = "Default"
    """Compute mode: Default, Prohibited or Exclusive_Process."""
    mig: bool = False
    """Whether it is partitioned; then only its partitions can be used."""
    trouble: str | None = None
    """Why it can't be used, in NVML's words; unknown fields are then empty."""

    def __str__(self) -> str:
        return f"GPU {self.index} ({self.name})" if self.name else f"GPU {self.index}"


def inventory(devices: Path = DEVICES) -> list[Gpu]:
    """Every GPU, in nvidia-smi's order.

    Raises Failure with advice when NVML doesn't work.
    """
    import pynvml

    try:
        with _nvml():
            return [_gpu(index) for index in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError as error:
        raise Failure(_advice(error, devices)) from None


def driver_version(devices: Path = DEVICES) -> str:
    """The NVIDIA driver's version. Raises Failure when NVML doesn't work."""
    import pynvml

    try:
        with _nvml():
            return str(pynvml.nvmlSystemGetDriverVersion())
    except pynvml.NVMLError as error:
        raise Failure(_advice(error, devices)) from None


def of(gpus: Sequence[Gpu], index: int, uuid: str | None) -> Gpu | None:
    """The GPU of an instance: by the recorded UUID if there is one, else by its index."""
    if uuid:
        return next((card for card in gpus if card.uuid == uuid), None)
    return gpus[index] if index < len(gpus) else None


@contextlib.contextmanager
def _nvml() -> Iterator[None]:
    import pynvml

    pynvml.nvmlInit()
    try:
        yield
    finally:
        with contextlib.suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


def _advice(error: Any, devices: Path) -> str:
    """What the error means, and what to do."""
    import pynvml

    absent = (pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, pynvml.NVML_ERROR_DRIVER_NOT_LOADED)
    if error.value in absent and not count(devices) and not driver_present(devices):
        return NO_GPU
    says = f"NVML says: {str(error).rstrip('.')}"
    match error.value:
        case pynvml.NVML_ERROR_LIBRARY_NOT_FOUND:
            return (
                f"the NVIDIA driver is loaded, but libnvidia-ml.so.1 is missing ({says}): give a "
                "container NVIDIA_DRIVER_CAPABILITIES=compute,utility and NVIDIA's container "
                "toolkit, or install the driver's compute libraries"
            )
        case pynvml.NVML_ERROR_DRIVER_NOT_LOADED:
            return f"the NVIDIA driver isn't loaded ({says}): modprobe nvidia, or reboot"
        case pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH:
            return (
                f"the NVIDIA driver and its library are of different versions ({says}): reboot "
                "after an update of the driver; start a container anew"
            )
    return f"the NVIDIA driver doesn't answer ({says}): see nvidia-smi and dmesg"


def _gpu(index: int) -> Gpu:
    import pynvml

    gpu = Gpu(index)
    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        uuid, name = pynvml.nvmlDeviceGetUUID(handle), pynvml.nvmlDeviceGetName(handle)
        gpu = replace(gpu, uuid=uuid, name=name)
        total, used = _memory(handle)
        mig, _ = _or_default((0, 0), pynvml.nvmlDeviceGetMigMode, handle)
        return replace(
            gpu,
            total=total,
            used=used,
            processes=_processes(handle),
            mode=_mode(handle),
            mig=mig == pynvml.NVML_DEVICE_MIG_ENABLE,
        )
    except pynvml.NVMLError as error:
        return replace(gpu, trouble=str(error).rstrip("."))


def _or_default(default: Any, ask: Callable[..., Any], *arguments: Any) -> Any:
    """NVML's answer; `default` if this GPU, driver or container doesn't support the question."""
    import pynvml

    try:
        return ask(*arguments)
    except pynvml.NVMLError as error:
        if error.value in (
            pynvml.NVML_ERROR_NOT_SUPPORTED,
            pynvml.NVML_ERROR_NO_PERMISSION,
            pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
            pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH,
        ):
            return default
        raise


def _memory(handle: Any) -> tuple[int, int]:
    """Total and used bytes."""
    import pynvml

    # Version 1, the only one of older drivers, counts the driver's reserved memory as used.
    for version in (pynvml.nvmlMemory_v2, None):
        if found := _or_default(None, pynvml.nvmlDeviceGetMemoryInfo, handle, version):
            return found.total, found.used
    return 0, 0


def _mode(handle: Any) -> str:
    import pynvml

    names = {
        pynvml.NVML_COMPUTEMODE_PROHIBITED: "Prohibited",
        pynvml.NVML_COMPUTEMODE_EXCLUSIVE_PROCESS: "Exclusive_Process",
    }
    return names.get(_or_default(None, pynvml.nvmlDeviceGetComputeMode, handle), "Default")


def _processes(handle: Any) -> tuple[Process, ...]:
    """Processes that draw or compute; one that does both is listed once."""
    import pynvml

    found: dict[int, Process] = {}
    for computes, ask in (
        (False, pynvml.nvmlDeviceGetGraphicsRunningProcesses_v3),
        (True, pynvml.nvmlDeviceGetComputeRunningProcesses_v3),
    ):
        for each in _or_default([], ask, handle):
            found[each.pid] = Process(each.pid, each.usedGpuMemory, computes)
    return tuple(found[pid] for pid in sorted(found))
