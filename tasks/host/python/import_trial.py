"""Tries in a separate process whether modules of a Python environment import together."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..system import files, process
from ..system.program_files import SERVICES

SCRIPT = SERVICES / "inside" / "import_report.py"
TIMEOUT = 600.0
"""Seconds for all modules; torch with CUDA takes 4 to 11 s, more on a cold network disk."""


@dataclass(frozen=True)
class Broken:
    """A module that doesn't import, and why."""

    name: str
    kind: str
    """The type of the root exception; empty when the process ended instead."""
    cause: str
    """Its message, or how the process ended."""
    library: str | None = None
    """The shared library that the loader didn't find, if that is the cause."""
    final: bool = True
    """Whether the module is at fault; False when time or memory ran out."""

    @property
    def shown(self) -> str:
        """Kind and cause in one line."""
        return ": ".join(part for part in (self.kind, self.cause) if part)


@dataclass(frozen=True)
class Tried:
    """The results, in order, up to the first module that doesn't import."""

    imported: dict[str, str] = field(default_factory=dict)
    """Name → the module's `__version__`; empty without one."""
    broken: Broken | None = None


def attempt(
    python: Path, names: Sequence[str], env: Mapping[str, str], scratch: Path, log: Path
) -> Tried:
    """Import these modules one after the other with an environment's interpreter."""
    report = scratch / "imports.json"
    report.parent.mkdir(parents=True, exist_ok=True)
    report.unlink(missing_ok=True)
    ending, final = "ended before it was imported", True
    try:
        # LC_ALL: the loader's messages are in English.
        argv = [python, "-I", SCRIPT, report, *names]
        process.run(argv, env={**env, "LC_ALL": "C"}, log=log, timeout=TIMEOUT)
    except process.CommandFailed as failed:
        ending, final = str(failed), failed.code not in (None, -signal.SIGKILL)
    results = files.read_receipt(report)
    imported: dict[str, str] = {}
    for name in names:
        result = results.get(name) or {}
        if "version" in result:
            imported[name] = str(result["version"])
        elif error := result.get("error"):
            root = error.get("root", error)
            broken = Broken(name, root["type"], root["message"], error.get("library"))
            return Tried(imported, broken)
        else:
            return Tried(imported, Broken(name, "", f"its process {ending}", final=final))
    return Tried(imported)
