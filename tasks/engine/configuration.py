"""What every doit call starts with: the machine file, and doit's own settings."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from doit import get_var
from doit.exceptions import InvalidDodoFile

from tasks.engine.lock import RunLock
from tasks.engine.reporter import Reporter
from tasks.host import gpu
from tasks.spec import Instance, Machine, SpecError, load

PARALLEL = 8
"""Tasks at once; clones and downloads wait for the network, not for a core."""


def load_machine() -> tuple[Machine, tuple[Instance, ...]]:
    """The machine that `machine=FILE` or MACHINE names (default machine.yaml), its instances.

    Raises InvalidDodoFile, which doit prints as one error with exit code 3.
    """
    file = Path(get_var("machine") or os.environ.get("MACHINE") or "machine.yaml")
    try:
        machine = load(file.absolute(), os.environ)
        return machine, machine.instances_for(gpu.count())
    except SpecError as error:
        raise InvalidDodoFile(f"\n{error}" if len(error.problems) > 1 else str(error)) from None


def doit_config(machine: Machine) -> dict[str, Any]:
    """doit's settings. Its database stays in memory: every check reads the disk."""

    class MachineReporter(Reporter):
        lock = RunLock(machine.workspace)

    return {
        "default_tasks": ["up"],
        "reporter": MachineReporter,
        "backend": "sqlite3",
        "dep_file": ":memory:",
        "num_process": PARALLEL,
        "par_type": "thread",
        "continue": True,
        "verbosity": 2,
        "sort": "definition",
    }
