"""The real pynvml over a driver that is only said to be there: put this folder on PYTHONPATH.

Only what pynvml loads with ctypes is replaced, so its wrappers, structures and errors are the
real ones. NVML_SCENARIO names a JSON file with the GPUs (see tests/cards.py); every function
that is called is written to a file beside it, `.calls` added to its name.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from collections.abc import Callable
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
INSUFFICIENT_SIZE, NOT_SUPPORTED, VERSION_MISMATCH, TIMEOUT = 7, 3, 25, 10
XID_EVENTS = 8
DELIVERED: set[tuple[str, int]] = set()
"""The errors that were reported: UUID and number."""


class Library:
    """What stands for libnvidia-ml.so.1: its functions, as Python functions."""

    def __init__(self, name: str) -> None:
        self.file = Path(os.environ["NVML_SCENARIO"])
        if name != "libnvidia-ml.so.1" or not self.scenario["library"]:
            raise OSError(f"{name}: cannot open shared object file: No such file or directory")

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if not hasattr(Functions, name) or name in self.scenario["lacks"]:
            raise AttributeError(name)

        def function(*arguments: Any) -> Any:
            with self.file.with_name(f"{self.file.name}.calls").open("a") as calls:
                calls.write(f"{name}\n")
            return getattr(Functions(self.scenario), name)(*arguments)

        return function

    @property
    def scenario(self) -> dict[str, Any]:
        return json.loads(self.file.read_text())  # type: ignore[no-any-return]


class Functions:
    """NVML's functions by their names in C: results go where pointers point, codes come back."""

    def __init__(self, scenario: dict[str, Any]) -> None:
        self.scenario = scenario

    def gpu(self, handle: Any, function: str) -> tuple[dict[str, Any], int]:
        """The GPU that a handle stands for, and the code that the function ends with there."""
        index = ctypes.cast(handle, ctypes.c_void_p).value or 0
        gpu = self.scenario["gpus"][index - 1]
        return gpu, gpu["errors"].get(function, 0)

    def nvmlInitWithFlags(self, flags: int) -> int:  # noqa: N802
        return int(self.scenario["init"])

    def nvmlShutdown(self) -> int:  # noqa: N802
        return 0

    def nvmlSystemGetDriverVersion(self, text: Any, size: Any) -> int:  # noqa: N802
        text.value = b"550.54.15"
        return 0

    def nvmlErrorString(self, code: int) -> bytes:  # noqa: N802
        return f"NVML's own words for {code}".encode()

    def nvmlDeviceGetCount_v2(self, count: Any) -> int:  # noqa: N802
        count._obj.value = len(self.scenario["gpus"])
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index: Any, handle: Any) -> int:  # noqa: N802
        ctypes.c_void_p.from_buffer(handle._obj).value = index.value + 1
        return self.gpu(handle._obj, "nvmlDeviceGetHandleByIndex_v2")[1]

    def nvmlDeviceGetUUID(self, handle: Any, text: Any, size: Any) -> int:  # noqa: N802
        gpu, code = self.gpu(handle, "nvmlDeviceGetUUID")
        text.value = gpu["uuid"].encode()
        return code

    def nvmlDeviceGetName(self, handle: Any, text: Any, size: Any) -> int:  # noqa: N802
        gpu, code = self.gpu(handle, "nvmlDeviceGetName")
        text.value = gpu["name"].encode()
        return code

    def nvmlDeviceGetMemoryInfo(self, handle: Any, memory: Any) -> int:  # noqa: N802
        gpu, code = self.gpu(handle, "nvmlDeviceGetMemoryInfo")
        memory._obj.total, memory._obj.used = gpu["total"], gpu["used"] + gpu["reserved"]
        return code

    def nvmlDeviceGetMemoryInfo_v2(self, handle: Any, memory: Any) -> int:  # noqa: N802
        gpu, code = self.gpu(handle, "nvmlDeviceGetMemoryInfo_v2")
        memory._obj.total, memory._obj.used = gpu["total"], gpu["used"]
        memory._obj.reserved = gpu["reserved"]
        return code if memory._obj.version == 0x02000028 else VERSION_MISMATCH

    def nvmlDeviceGetComputeMode(self, handle: Any, mode: Any) -> int:  # noqa: N802
        gpu, code = self.gpu(handle, "nvmlDeviceGetComputeMode")
        mode._obj.value = gpu["mode"]
        return code

    def nvmlDeviceGetMigMode(self, handle: Any, current: Any, pending: Any) -> int:  # noqa: N802
        gpu, code = self.gpu(handle, "nvmlDeviceGetMigMode")
        if gpu["mig"] is None:
            return NOT_SUPPORTED
        current._obj.value = pending._obj.value = gpu["mig"]
        return code

    def nvmlDeviceGetComputeRunningProcesses_v3(  # noqa: N802
        self, handle: Any, count: Any, processes: Any
    ) -> int:
        gpu, code = self.gpu(handle, "nvmlDeviceGetComputeRunningProcesses_v3")
        return code or _fill(gpu["compute"], count, processes)

    def nvmlDeviceGetGraphicsRunningProcesses_v3(  # noqa: N802
        self, handle: Any, count: Any, processes: Any
    ) -> int:
        gpu, code = self.gpu(handle, "nvmlDeviceGetGraphicsRunningProcesses_v3")
        return code or _fill(gpu["graphics"], count, processes)

    def nvmlEventSetCreate(self, events: Any) -> int:  # noqa: N802
        ctypes.c_void_p.from_buffer(events._obj).value = 1
        return 0

    def nvmlEventSetFree(self, events: Any) -> int:  # noqa: N802
        return 0

    def nvmlDeviceGetSupportedEventTypes(self, handle: Any, types: Any) -> int:  # noqa: N802
        types._obj.value = XID_EVENTS
        return self.gpu(handle, "nvmlDeviceGetSupportedEventTypes")[1]

    def nvmlDeviceRegisterEvents(self, handle: Any, types: Any, events: Any) -> int:  # noqa: N802
        return self.gpu(handle, "nvmlDeviceRegisterEvents")[1]

    def nvmlEventSetWait_v2(self, events: Any, data: Any, timeout: Any) -> int:  # noqa: N802
        """Each error once, also after the scenario changed."""
        for index, gpu in enumerate(self.scenario["gpus"]):
            for number in gpu["xids"]:
                if (gpu["uuid"], number) not in DELIVERED:
                    DELIVERED.add((gpu["uuid"], number))
                    ctypes.c_void_p.from_buffer(data._obj).value = index + 1
                    data._obj.eventType, data._obj.eventData = XID_EVENTS, number
                    return 0
        return TIMEOUT


def _fill(wanted: list[list[int | None]], count: Any, processes: Any) -> int:
    """Like NVML: the number alone when there is no room yet, then pid and bytes of each."""
    room, count._obj.value = count._obj.value, len(wanted)
    if len(wanted) > room:
        return INSUFFICIENT_SIZE
    for place, (pid, used) in zip(processes or [], wanted, strict=False):
        place.pid = pid
        place.usedGpuMemory = 2**64 - 1 if used is None else used
    return 0


def _load() -> None:
    """Put the real module, with its one way to the driver replaced, in this one's place."""
    elsewhere = [path for path in sys.path if Path(path).resolve() != HERE]
    spec = PathFinder.find_spec("pynvml", elsewhere)
    assert spec is not None
    assert spec.loader is not None
    real: Any = module_from_spec(spec)
    sys.modules["pynvml"] = real
    spec.loader.exec_module(real)
    real.CDLL = Library


if __name__ == "pynvml":
    _load()
