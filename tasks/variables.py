"""The variables that machine.yaml's env fields name: told before anything waits for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from .engine.step import Task, step
from .host.system.failure import Failure
from .spec import Instance, Machine, problem_at, variable_references
from .spec.problems import Loc


def tasks(machine: Machine, instances: Sequence[Instance]) -> Iterator[Task]:
    refuse = partial(_refuse, machine, instances)
    yield step(
        "variables:",
        "The variables that env: names are set",
        check=partial(_unset, machine, instances),
        action=refuse,
        foresee=lambda log: refuse(log) or (),
        log=machine.layout.log("variables"),
    )


def unset(machine: Machine, instances: Sequence[Instance]) -> Iterator[tuple[Loc, str]]:
    """What starting these instances lacks: the place in machine.yaml, and the variable."""
    for loc, env in _envs(machine, instances):
        for key, value in env.items():
            for name in variable_references.unset(value, machine.env):
                yield (*loc, key), name


def _envs(
    machine: Machine, instances: Sequence[Instance]
) -> Iterator[tuple[Loc, Mapping[str, str]]]:
    if not machine.enabled:
        return
    chosen = machine.selected_nodes
    for number, node in enumerate(machine.custom_nodes):
        # An optional one goes without, with a warning.
        if not node.optional and (chosen is None or node.name in chosen):
            yield ("custom_nodes", number, "env"), node.env
    if not instances:
        return
    yield ("instances", "env"), machine.instances.env
    for instance in instances:
        if own := machine.instances.overrides.get(instance.gpu):
            yield ("instances", "overrides", instance.gpu, "env"), own.env
    for number, worker in enumerate(machine.workers):
        yield ("workers", number, "env"), worker.env


def _unset(machine: Machine, instances: Sequence[Instance]) -> str | None:
    names = [name for _, name in unset(machine, instances)]
    return f"not set: {', '.join(dict.fromkeys(names))}" if names else None


def _refuse(machine: Machine, instances: Sequence[Instance], log: Path) -> None:
    """Raises Failure with a line for each."""
    local = machine.file.parent / ".env.local"
    lines = [
        str(
            problem_at(
                machine.file,
                loc,
                f"the variable {name} isn't set: set it, or put it into {local}",
            )
        )
        for loc, name in unset(machine, instances)
    ]
    if lines:
        raise Failure("\n    ".join(lines))
