"""doit update: move machine.lock to the newest versions; `doit` applies it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from doit.exceptions import InvalidCommand

from ..engine import write_guard
from ..engine.run import Run
from ..engine.run_command import RunCommand
from ..host.system.program_files import PROGRAM
from ..source import stage as source
from ..spec.problems import did_you_mean

ALL_PACKAGES = "python"


class Update(RunCommand):
    doc_purpose = "move machine.lock to the newest of everything, or of NAMEs"
    doc_usage = "[NAME ...]"
    doc_description = (
        "A NAME is a custom node, ComfyUI, a Python package, torch (with its family), python (all "
        "packages), or the target of a model. It builds nothing: the next "
        f"{PROGRAM} applies the lock."
    )

    @classmethod
    def words(cls, run: Run) -> Iterator[tuple[str, str]]:
        """The names that it takes, for completion."""
        yield from ((name, "") for name in _known(run))

    def execute(self, params: Any, args: list[str]) -> Any:
        self._names = args
        return super().execute(params, ["lock"])

    @contextmanager
    def prepared(self, run: Run) -> Iterator[Run]:
        if reason := _refusal(run, self._names):
            raise InvalidCommand(reason)
        with tempfile.TemporaryDirectory(prefix="comfy-machine-update-") as folder:
            # It writes only machine.lock, at the end, so a failure changes nothing.
            overlay = Path(folder).resolve()
            run = replace(run, updates=frozenset(self._names), overlay=overlay)
            with write_guard.only_overlay(run, lock=True):
                yield run


def _refusal(run: Run, names: list[str]) -> str | None:
    if run.machine.lock_damage:
        return run.machine.lock_damage
    if run.locked:
        return "update changes the lock, and locked=1 forbids that: run it without locked=1"
    if run.machine.overridden:
        return (
            "environment variables override machine.yaml, so the lock must not change: unset them"
        )
    known = [source.NAME.lower(), *_known(run)]
    for name in names:
        if name not in known:
            hint = (
                did_you_mean(name, known)
                or ": name a custom node, ComfyUI, a Python package or a model's target"
            )
            return f"nothing is named {name!r}{hint}"
    return None


def _known(run: Run) -> list[str]:
    """What can move."""
    nodes = [node.name for node in run.machine.custom_nodes]
    packages = [*run.machine.lock.python.packages] if run.machine.lock.python else []
    return [source.NAME, ALL_PACKAGES, "torch", *nodes, *packages, *run.machine.lock.models]
