"""What the user wants: machine.yaml read strictly, with the environment's overrides.

No doit, no network, no clock: the same file and environment give the same Machine.
"""

from __future__ import annotations

from .lock import Asked, Lock, ModelPin, Package, Pin, PythonSet
from .machine import Instance, Machine
from .machine_file import load
from .model import (
    ComfyUI,
    CustomNode,
    Health,
    Instances,
    Limits,
    ModelFile,
    ModelRoot,
    Models,
    Override,
    Python,
    Worker,
)
from .problems import Problem, SpecError
from .sizes import in_bytes
from .variables import expand

__all__ = [
    "Asked",
    "ComfyUI",
    "CustomNode",
    "Health",
    "Instance",
    "Instances",
    "Limits",
    "Lock",
    "Machine",
    "ModelFile",
    "ModelPin",
    "ModelRoot",
    "Models",
    "Override",
    "Package",
    "Pin",
    "Problem",
    "Python",
    "PythonSet",
    "SpecError",
    "Worker",
    "expand",
    "in_bytes",
    "load",
]
