"""What every doit call starts with: the machine file, and doit's own settings."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Any

from doit import get_var
from doit.exceptions import InvalidDodoFile

from ..host.repositories import git
from ..host.system import gpu
from ..host.system.run_lock import RunLock
from ..spec import Instance, Machine, SpecError, load
from . import planning, signals
from .journal import Writer
from .reporter import PlanReporter, Reporter

VARIABLES = ("machine", "locked", "force")
"""What may stand on doit's command line as NAME=VALUE."""
PARALLEL = 8
"""Tasks at once; clones and downloads wait for the network, not for a core."""


def load_machine() -> tuple[Machine, tuple[Instance, ...]]:
    """The machine that `machine=FILE` or MACHINE names (default machine.yaml), its instances.

    Raises InvalidDodoFile, which doit prints as one error with exit code 3.
    """
    signals.handle()
    git.forget_the_callers_repository()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that knows no ✓ gets a ?, not a traceback.
            stream.reconfigure(errors="replace")
    _refuse_unknown_variables()
    file = Path(get_var("machine") or os.environ.get("MACHINE") or "machine.yaml")
    try:
        machine = load(file.absolute(), os.environ).model_copy(update=_options())
        return machine, machine.instances_for(gpu.count())
    except SpecError as error:
        raise InvalidDodoFile(f"\n{error}" if len(error.problems) > 1 else str(error)) from None


def _options() -> dict[str, Any]:
    """What the command line says beside the machine file."""
    switches = {}
    for name in ("locked", "force"):
        said = get_var(name) or "0"
        if said not in ("0", "1"):
            raise InvalidDodoFile(f"{name}={said}: write {name}=1, or leave it out")
        switches[name] = said == "1"
    return {
        **switches,
        "updates": planning.updates,
        "overlay": planning.overlay,
    }


def _refuse_unknown_variables() -> None:
    """doit takes any NAME=VALUE; one that nobody reads is a slip of the pen."""
    for word in sys.argv[1:]:
        name = word.split("=")[0]
        if "=" in word and name.isidentifier() and name not in VARIABLES:
            known = ", ".join(f"{name}=" for name in VARIABLES)
            raise InvalidDodoFile(
                f"doit {word}: there is no variable {name!r} (there is {known}); "
                f"one of the environment goes before the command: {word} doit"
            )


def doit_config(machine: Machine) -> dict[str, Any]:
    """doit's settings. Its database stays in memory: every check reads the disk."""

    planned = planning.overlay is not None and planning.updates is None

    class MachineReporter(PlanReporter if planned else Reporter):  # type: ignore[misc]
        lock = RunLock(machine.workspace)
        refusal = machine.lock_damage
        journal = Writer(machine.layout)

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
