"""What every doit call starts with: the machine file, and doit's own settings."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from doit import get_var
from doit.exceptions import InvalidDodoFile

from ..host.repositories import git
from ..host.system import gpu
from ..spec import SpecError, load
from . import signals
from .reporter import Reporter
from .run import Run

VARIABLES = ("machine", "locked", "force")
"""What may stand on doit's command line as NAME=VALUE."""
PARALLEL = 8
"""Tasks at once; clones and downloads wait for the network, not for a core."""
SETTINGS: dict[str, Any] = {
    "default_tasks": ["up"],
    "reporter": Reporter,
    "backend": "sqlite3",
    # In memory: every check reads the disk.
    "dep_file": ":memory:",
    "num_process": PARALLEL,
    "par_type": "thread",
    "continue": True,
    "verbosity": 2,
    "sort": "definition",
}
"""doit's own, as dodo.py hands them over."""


class _Current:
    """The run of this process: doit imports dodo.py, and gives it no argument."""

    prepare: Callable[[], Run] | None = None
    run: Run | None = None


def set_factory(how: Callable[[], Run]) -> None:
    """What makes the run once dodo.py asks for it."""
    _Current.prepare = how


def current_run() -> Run:
    """The run as a command prepared it, or one that only looks, as for `doit list`."""
    if _Current.run is None:
        _Current.run = (_Current.prepare or load_run)()
    return _Current.run


def loaded_run() -> Run | None:
    """The run, None with a dodo.py that isn't ours and asked for none."""
    return _Current.run


def load_run() -> Run:
    """The machine that `machine=FILE` or MACHINE names (default machine.yaml), with the options.

    Raises InvalidDodoFile, which doit prints as one error with exit code 3.
    """
    _prepare_process()
    _refuse_unknown_variables()
    file = Path(get_var("machine") or os.environ.get("MACHINE") or "machine.yaml")
    try:
        machine = load(file.absolute(), os.environ)
        instances = machine.instances_for(gpu.count())
    except SpecError as error:
        raise InvalidDodoFile(f"\n{error}" if len(error.problems) > 1 else str(error)) from None
    return Run(machine, instances, locked=_switch("locked"), force=_switch("force"))


def _prepare_process() -> None:
    signals.install_handlers()
    git.forget_the_callers_repository()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that knows no ✓ gets a ?, not a traceback.
            stream.reconfigure(errors="replace")


def _switch(name: str) -> bool:
    """Whether NAME=1 stands on the command line. Raises InvalidDodoFile for another value."""
    value = get_var(name) or "0"
    if value not in ("0", "1"):
        raise InvalidDodoFile(f"{name}={value}: write {name}=1, or leave it out")
    return value == "1"


def _refuse_unknown_variables() -> None:
    """doit takes any NAME=VALUE; one that nothing reads is a slip of the pen."""
    for word in sys.argv[1:]:
        name = word.split("=")[0]
        if "=" in word and name.isidentifier() and name not in VARIABLES:
            known = ", ".join(f"{name}=" for name in VARIABLES)
            raise InvalidDodoFile(
                f"doit {word}: there is no variable {name!r} (there is {known}); "
                f"one of the environment goes before the command: {word} doit"
            )
