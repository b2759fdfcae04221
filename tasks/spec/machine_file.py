"""Loads a machine file with its environment: a Machine, or every problem of both."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from .checks import Finding, check_all, check_overrides
from .field_errors import translate
from .loader import Document, read_document
from .lock_format import Lock, read_lock
from .machine import Machine
from .model import Spec
from .overrides import Applied, Environment, apply, read_environment, select
from .problems import Loc, Problem, SpecError, dotted
from .resolve import resolve
from .short_forms import spell_out


def load(file: Path, environ: Mapping[str, str]) -> Machine:
    """Read a machine file. Raises SpecError with all its problems and those of the environment."""
    file = Path(os.path.normpath(Path.cwd() / file))
    environment = read_environment(file.parent, environ)
    try:
        document = read_document(file, _label(file))
    except SpecError as error:
        raise SpecError([*error.problems, *_without_file(environment)]) from None
    document.data = spell_out(document.data)
    applied = apply(document.data, environment)
    select(applied, environment)
    spec, findings = _validate(applied.data, document)
    findings += check_all(applied.data, file.parent, environment.values)
    # NUM_GPUS may leave overrides without an instance, but the file alone may not.
    findings += check_overrides(document.data)
    problems = [
        *document.problems,
        *_hidden(document, applied),
        *_located(findings, document, applied),
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
    """A problem that a run finds with a value of a machine file, with the value's line."""
    try:
        line = read_document(file, _label(file)).line(loc)
    except SpecError:
        line = None
    return Problem(_label(file), line, dotted(loc), message)


def _concerns_lock(loc: Loc) -> bool:
    """Whether an override changes something that the lock records."""
    return loc[:2] == ("comfyui", "repo") or loc[0] == "custom_nodes"


def _label(file: Path) -> str:
    """The file's name in messages: relative if it is below the current folder."""
    try:
        return str(file.relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(file)


def _validate(data: dict[Any, Any], document: Document) -> tuple[Spec | None, list[Finding]]:
    try:
        return Spec.model_validate(data), []
    except ValidationError as error:
        return None, list(translate(error, document))


def _located(findings: list[Finding], document: Document, applied: Applied) -> Iterator[Problem]:
    """Each finding with the place where its value was set: the file or the environment."""
    for loc, message in findings:
        outer = next((loc[:n] for n in range(len(loc), 0, -1) if loc[:n] in applied.origins), None)
        if outer is not None:
            yield applied.origins[outer].problem(message)
        elif not any(loc[:n] in document.refused for n in range(len(loc) + 1)):
            yield Problem(document.file, document.line(loc), dotted(loc), message)


def _hidden(document: Document, applied: Applied) -> Iterator[Problem]:
    """Problems of values in the file that an override replaces."""
    if not applied.origins:
        return
    for loc, message in _validate(document.data, document)[1]:
        if loc in applied.origins and loc in document.lines and loc not in document.refused:
            yield Problem(document.file, document.lines[loc], dotted(loc), message)


def _without_file(environment: Environment) -> list[Problem]:
    applied = apply({}, environment)
    document = Document("")
    findings = [each for each in _validate(applied.data, document)[1] if each[0] in applied.origins]
    return [*environment.problems, *applied.problems, *_located(findings, document, applied)]
