"""Errors that GPUs report from now on, through NVML's events (Xid, also in dmesg)."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .failure import Failure

OF_PROGRAMS = frozenset({13, 31, 43, 45, 68, 109})
"""Xids that a program causes, and a sound GPU survives. Source: NVIDIA's k8s-device-plugin, which
leaves GPUs with these in service."""
MOST = 100
"""Events that are read at once."""


@dataclass(frozen=True)
class Xid:
    """One error: the GPU's index in nvidia-smi's order, and NVIDIA's number of the error."""

    index: int
    number: int


class GpuErrors:
    """Collects errors from its creation on. Keeps NVML loaded, which makes further questions cheap.

    Raises Failure when NVML doesn't work.
    """

    def __init__(self) -> None:
        import pynvml

        self._indices: dict[int | None, int] = {}
        try:
            pynvml.nvmlInit()
            self._events = pynvml.nvmlEventSetCreate()
            count = pynvml.nvmlDeviceGetCount()
        except pynvml.NVMLError as error:
            raise Failure(f"NVML says: {str(error).rstrip('.')}") from None
        for index in range(count):
            # Not every GPU reports errors, and a lost one has no handle.
            with contextlib.suppress(pynvml.NVMLError):
                self._register(index)

    def _register(self, index: int) -> None:
        import pynvml

        handle, wanted = (
            pynvml.nvmlDeviceGetHandleByIndex(index),
            pynvml.nvmlEventTypeXidCriticalError,
        )
        if pynvml.nvmlDeviceGetSupportedEventTypes(handle) & wanted:
            pynvml.nvmlDeviceRegisterEvents(handle, wanted, self._events)
            self._indices[_address(handle)] = index

    def read(self) -> list[Xid]:
        """The errors since the last time, without those that programs cause; never waits."""
        return [each for each in self._read() if each.number not in OF_PROGRAMS]

    def _read(self) -> Iterator[Xid]:
        import pynvml

        for _ in range(MOST if self._indices else 0):
            try:
                event = pynvml.nvmlEventSetWait(self._events, 0)
            except pynvml.NVMLError:
                # None is there, or a GPU is lost, which the inventory shows.
                return
            index = self._indices.get(_address(event.device))
            if index is not None and event.eventType == pynvml.nvmlEventTypeXidCriticalError:
                yield Xid(index, int(event.eventData))


def _address(handle: Any) -> int | None:
    return ctypes.cast(handle, ctypes.c_void_p).value
