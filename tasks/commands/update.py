"""doit update: move the lock to the newest; `doit` applies it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from doit import cmd_run
from doit.exceptions import InvalidCommand

from ..engine import planning
from ..engine.configuration import load_machine
from ..source import stage as source
from ..spec import Machine
from ..spec.problems import did_you_mean

EVERYTHING_OF_PYTHON = "python"


class Update(cmd_run.Run):  # type: ignore[misc]
    doc_purpose = "move the lock to the newest: all of it, or these nodes, packages and models"
    doc_usage = "[NAME ...]"
    doc_description = (
        "A NAME is a custom node, ComfyUI, a Python package, torch with its family, python for "
        "all packages, or the target of a model. Nothing is built: doit applies what the lock says."
    )

    def execute(self, params: Any, args: list[str]) -> Any:
        machine, _ = load_machine()
        if reason := _refusal(machine, args):
            raise InvalidCommand(reason)
        planning.updates = frozenset(args)
        with tempfile.TemporaryDirectory(prefix="comfy-machine-update-") as folder:
            # Only the lock is written: doit then sees what moved, and a failure moves nothing.
            planning.overlay = Path(folder).resolve()
            return super().execute(params, ["lock"])


def _refusal(machine: Machine, names: list[str]) -> str | None:
    if machine.lock_damage:
        return machine.lock_damage
    if machine.locked:
        return "update changes the lock, and locked=1 forbids it: leave one of them out"
    if machine.overridden:
        return "the environment overrides machine.yaml, and overrides never write the lock"
    nodes = [node.name for node in machine.custom_nodes]
    packages = [*machine.lock.python.packages] if machine.lock.python else []
    known = [source.NAME, source.NAME.lower(), EVERYTHING_OF_PYTHON, "torch", *nodes, *packages,
             *machine.lock.models]  # fmt: skip
    for name in names:
        if name not in known:
            hint = (
                did_you_mean(name, known)
                or ": name a custom node, ComfyUI, a Python package or a model's target"
            )
            return f"nothing is named {name!r}{hint}"
    return None
