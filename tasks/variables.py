"""Checks that the variables in machine.yaml's env fields are set, before any long step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from .engine.run import Run
from .engine.step import Task, step
from .host.system.failure import Failure
from .spec import expand, problem_at, variable_references
from .spec.problems import Loc


def tasks(run: Run) -> Iterator[Task]:
    refuse = partial(_refuse, run)
    yield step(
        run,
        "variables",
        "Variables named in env: fields are set",
        check=partial(_reason, run),
        action=refuse,
        preview=lambda log: refuse(log) or (),
    )


def expand_or_fail(run: Run, text: str, field: str) -> str:
    """Replace `${NAME}` in a field's text. Raises Failure for a variable that isn't set."""
    try:
        return expand(text, run.machine.env)
    except KeyError as error:
        raise Failure(f"{field}: {_unset_message(run, error.args[0])}") from None


def unset_variables(run: Run) -> Iterator[tuple[Loc, str]]:
    """The unset variables that the instances need, each with its place in machine.yaml."""
    for loc, env in _envs(run):
        for key, value in env.items():
            for name in variable_references.unset(value, run.machine.env):
                yield (*loc, key), name


def _envs(run: Run) -> Iterator[tuple[Loc, Mapping[str, str]]]:
    if not run.machine.enabled:
        return
    if jobs := run.machine.jobs:
        named = {key: getattr(jobs, key) for key in ("token", "credentials", "webhook_secret")}
        yield ("jobs",), {key: value for key, value in named.items() if value}
        if store := jobs.store:
            keys = {"access_key": store.access_key, "secret_key": store.secret_key}
            yield ("jobs", "store"), keys
    chosen = run.machine.selected_nodes
    for number, node in enumerate(run.machine.custom_nodes):
        # An optional node starts without it, with a warning.
        if not node.optional and (chosen is None or node.name in chosen):
            yield ("custom_nodes", number, "env"), node.env
    if not run.instances:
        return
    yield ("instances", "env"), run.machine.instances.env
    for instance in run.instances:
        if own := run.machine.instances.overrides.get(instance.gpu):
            yield ("instances", "overrides", instance.gpu, "env"), own.env
    for number, worker in enumerate(run.machine.workers):
        yield ("workers", number, "env"), worker.env


def _reason(run: Run) -> str | None:
    names = [name for _, name in unset_variables(run)]
    return f"not set: {', '.join(dict.fromkeys(names))}" if names else None


def _refuse(run: Run, log: Path) -> None:
    """Raises Failure with a line for each unset variable."""
    lines = [
        str(problem_at(run.machine.file, loc, _unset_message(run, name)))
        for loc, name in unset_variables(run)
    ]
    if lines:
        raise Failure("\n    ".join(lines))


def _unset_message(run: Run, name: str) -> str:
    local = run.machine.file.parent / ".env.local"
    return f"the variable {name} isn't set: set it, or put it into {local}"
