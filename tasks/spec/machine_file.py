"""From a file and an environment to a Machine, or to every problem of both."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from .checks import Found, check_all, check_overrides
from .field_errors import told
from .loader import Document, read
from .lock_format import Lock, read_lock
from .machine import Machine
from .model import Spec
from .overrides import Applied, Environment, apply, read_environment, select
from .problems import Loc, Problem, SpecError, dotted
from .resolve import resolve


def load(file: Path, environ: Mapping[str, str]) -> Machine:
    """Read a machine file. Raises SpecError with every problem of it and of the environment."""
    file = Path(os.path.normpath(Path.cwd() / file))
    environment = read_environment(file.parent, environ)
    try:
        document = read(file, _label(file))
    except SpecError as error:
        raise SpecError([*error.problems, *_without_file(environment)]) from None
    applied = apply(document.data, environment)
    select(applied, environment)
    spec, found = _validate(applied.data, document)
    found += check_all(applied.data, file.parent, environment.values)
    # NUM_GPUS may leave overrides of the file without an instance; the file itself may not
    found += check_overrides(document.data)
    problems = [
        *document.problems,
        *_hidden(document, applied),
        *_placed(found, document, applied),
        *environment.problems,
        *applied.problems,
    ]
    if problems or spec is None:
        raise SpecError(sorted(problems, key=lambda problem: problem.file != document.file))
    lock_file = file.with_suffix(".lock")
    try:
        machine = resolve(spec, file, environment.values, applied.enabled, applied.selected)
    except ValueError as error:
        raise SpecError([Problem(document.file, None, "a path", str(error))]) from None
    lock, damage = Lock(), None
    try:
        lock = read_lock(lock_file, _label(lock_file))
    except SpecError as error:
        damage = str(error)
    return machine.model_copy(
        update={
            "lock": lock,
            "lock_damage": damage,
            "overridden": any(_concerns_lock(loc) for loc in applied.origins),
        }
    )


def problem_at(file: Path, loc: Loc, message: str) -> Problem:
    """What a run finds wrong with a value of a machine file, in its line as the file is now."""
    try:
        line = read(file, _label(file)).line(loc)
    except SpecError:
        line = None
    return Problem(_label(file), line, dotted(loc), message)


def _concerns_lock(loc: Loc) -> bool:
    """Whether an override changes what a lock holds; which build `torch: auto` is, it doesn't."""
    return loc[:2] == ("comfyui", "repo") or loc[0] == "custom_nodes"


def _label(file: Path) -> str:
    """The file as messages name it: short when it is below the current folder."""
    try:
        return str(file.relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(file)


def _validate(data: dict[Any, Any], document: Document) -> tuple[Spec | None, list[Found]]:
    try:
        return Spec.model_validate(data), []
    except ValidationError as error:
        return None, list(told(error, document))


def _placed(found: list[Found], document: Document, applied: Applied) -> Iterator[Problem]:
    """Each finding where its value was set: in the file or in the environment."""
    for loc, message in found:
        outer = next((loc[:n] for n in range(len(loc), 0, -1) if loc[:n] in applied.origins), None)
        if outer is not None:
            yield applied.origins[outer].problem(message)
        elif not any(loc[:n] in document.refused for n in range(len(loc) + 1)):
            yield Problem(document.file, document.line(loc), dotted(loc), message)


def _hidden(document: Document, applied: Applied) -> Iterator[Problem]:
    """What an override hides in the file is still wrong there."""
    if not applied.origins:
        return
    for loc, message in _validate(document.data, document)[1]:
        if loc in applied.origins and loc in document.lines and loc not in document.refused:
            yield Problem(document.file, document.lines[loc], dotted(loc), message)


def _without_file(environment: Environment) -> list[Problem]:
    applied = apply({}, environment)
    document = Document("")
    found = [item for item in _validate(applied.data, document)[1] if item[0] in applied.origins]
    return [*environment.problems, *applied.problems, *_placed(found, document, applied)]
