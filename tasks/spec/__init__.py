"""What the user wants: machine.yaml read strictly, with the environment's overrides.

No doit, no network, no clock: the same file and environment give the same Machine. A name is
loaded when it is first asked for: what only wants to know where things lie, such as the watcher,
needs no pydantic, which takes most of the time and half of the memory that it starts with.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .lock_format import Asked, Lock, ModelPin, Package, Pin, PythonSet
    from .machine import Instance, Machine
    from .machine_file import load, problem_at
    from .model import CustomNode, Limits, ModelFile, ModelRoot, Worker
    from .problems import SpecError
    from .sizes import in_bytes
    from .variable_references import expand

__all__ = [
    "Asked",
    "CustomNode",
    "Instance",
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
        found = vars(import_module(f".{module}", __name__)).get(name)
        if found is not None:
            return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
