"""The start of every doit call: load the machine file, configure doit."""

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
from ..host.system import cordons, gpu
from ..host.system.program_files import PROGRAM
from ..spec import SpecError, load
from . import command_line, signals
from .reporter import Reporter
from .run import Run

VARIABLES = command_line.NAMES
"""The names that doit's command line takes as NAME=VALUE."""
DEFAULT_FILE = Path("machine.yaml")
PARALLEL = 8
"""Tasks that run at once; clones and downloads wait for the network, not for a core."""
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
"""doit's settings, which dodo.py passes on as DOIT_CONFIG."""


class _Current:
    """The run of this process. A global, since doit imports dodo.py without an argument."""

    factory: Callable[[], Run] | None = None
    run: Run | None = None


def set_factory(factory: Callable[[], Run]) -> None:
    """Let `factory` make the run when dodo.py asks for it."""
    _Current.factory = factory


def current_run() -> Run:
    """The run that a command prepared, or a read-only one, as for `doit list`."""
    if _Current.run is None:
        _Current.run = (_Current.factory or load_run)()
    return _Current.run


def loaded_run() -> Run | None:
    """The run; None when a dodo.py that isn't ours never asked for one."""
    return _Current.run


def machine_file() -> Path:
    """The file that `machine=FILE` or MACHINE names, by default machine.yaml."""
    return Path(get_var("machine") or os.environ.get("MACHINE") or DEFAULT_FILE)


def load_run() -> Run:
    """Load the machine of `machine_file`, with the options of this call.

    Raises InvalidDodoFile, which doit prints as one error with exit code 3.
    """
    prepare_process()
    _refuse_unknown_variables()
    try:
        os.getcwd()  # noqa: PTH109  pathlib would hide what is asked
    except FileNotFoundError:
        raise InvalidDodoFile("this folder was deleted: cd to another one") from None
    file = machine_file()
    if file == DEFAULT_FILE and not os.path.lexists(file):
        here = Path.cwd()
        raise InvalidDodoFile(f"no machine.yaml in {here}: {PROGRAM} init writes one")
    try:
        machine = load(file.absolute(), os.environ)
        instances = machine.instances_for(gpu.count())
    except SpecError as error:
        raise InvalidDodoFile(f"\n{error}" if len(error.problems) > 1 else str(error)) from None
    run = Run(machine, instances, locked=_switch("locked"), force=_switch("force"))
    return run.with_cordons(cordons.read(run.layout))


def prepare_process() -> None:
    """Signals, permissions and variables as commands of ours need them."""
    signals.install_handlers()
    # Whatever the caller's, nothing of ours may be writable for everyone.
    os.umask(os.umask(0o022) | 0o002)
    git.forget_the_callers_repository()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that can't show ✓ shows ?, not a traceback.
            stream.reconfigure(errors="replace")


def _switch(name: str) -> bool:
    """Whether the command line has NAME=1. Raises InvalidDodoFile for another value."""
    value = get_var(name) or "0"
    if value not in ("0", "1"):
        raise InvalidDodoFile(f"{name}={value}: write {name}=1, or leave it out")
    return value == "1"


def _refuse_unknown_variables() -> None:
    """Raise InvalidDodoFile for a NAME=VALUE that nothing reads; doit itself takes any."""
    for word in sys.argv[1:]:
        name = word.split("=")[0]
        if "=" in word and name.isidentifier() and name not in VARIABLES:
            names = ", ".join(f"{name}=" for name in VARIABLES)
            raise InvalidDodoFile(
                f"{PROGRAM} {word}: unknown variable {name!r} (known: {names}); "
                f"an environment variable goes before the command: {word} {PROGRAM}"
            )
