"""What the user wants: machine.yaml read strictly, with the environment's overrides.

No doit, no network, no clock: the same file and environment give the same Machine. Names are
imported on first use, so that programs which only need `layout`, such as the watcher, don't load
pydantic: it would take most of their start-up time and half of their memory.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .lock_format import Archive, Asked, Lock, ModelPin, Package, Pin, PythonSet
    from .machine import Instance, Machine
    from .machine_file import load, problem_at
    from .model import CustomNode, Jobs, Limits, ModelFile, ModelRoot, Worker
    from .problems import SpecError
    from .sizes import in_bytes
    from .variable_references import expand

__all__ = [
    "Archive",
    "Asked",
    "CustomNode",
    "Instance",
    "Jobs",
    "Limits",
    "Lock",
    "Machine",
    "ModelFile",
    "ModelPin",
    "ModelRoot",
    "Package",
    "Pin",
    "PythonSet",
    "SpecError",
    "Worker",
    "expand",
    "in_bytes",
    "load",
    "problem_at",
]
_MODULES = (
    "variable_references", "sizes", "problems", "lock_format", "model", "machine", "machine_file",
)  # fmt: skip


def __getattr__(name: str) -> Any:
    for module in _MODULES if name in __all__ else ():
        value = vars(import_module(f".{module}", __name__)).get(name)
        if value is not None:
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
