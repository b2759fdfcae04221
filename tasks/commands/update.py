"""doit update: move the lock to the newest; `doit` applies it."""

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
from ..source import stage as source
from ..spec.problems import did_you_mean

EVERYTHING_OF_PYTHON = "python"


class Update(RunCommand):
    doc_purpose = "move the lock to the newest: all of it, or these nodes, packages and models"
    doc_usage = "[NAME ...]"
    doc_description = (
        "A NAME is a custom node, ComfyUI, a Python package, torch with its family, python for "
        "all packages, or the target of a model. Nothing is built: doit applies what the lock says."
    )

    def execute(self, params: Any, args: list[str]) -> Any:
        self._names = args
        return super().execute(params, ["lock"])

    @contextmanager
    def prepared(self, run: Run) -> Iterator[Run]:
        if reason := _refusal(run, self._names):
            raise InvalidCommand(reason)
        with tempfile.TemporaryDirectory(prefix="comfy-machine-update-") as folder:
            # Only the lock is written: doit then sees what moved, and a failure moves nothing.
            overlay = Path(folder).resolve()
            run = replace(run, updates=frozenset(self._names), overlay=overlay)
            with write_guard.only_overlay(run, lock=True):
                yield run


def _refusal(run: Run, names: list[str]) -> str | None:
    if run.machine.lock_damage:
        return run.machine.lock_damage
    if run.locked:
        return "update changes the lock, and locked=1 forbids it: leave one of them out"
    if run.machine.overridden:
        return "the environment overrides machine.yaml, and overrides never write the lock"
    nodes = [node.name for node in run.machine.custom_nodes]
    packages = [*run.machine.lock.python.packages] if run.machine.lock.python else []
    known = [source.NAME, source.NAME.lower(), EVERYTHING_OF_PYTHON, "torch", *nodes, *packages,
             *run.machine.lock.models]  # fmt: skip
    for name in names:
        if name not in known:
            hint = (
                did_you_mean(name, known)
                or ": name a custom node, ComfyUI, a Python package or a model's target"
            )
            return f"nothing is named {name!r}{hint}"
    return None
