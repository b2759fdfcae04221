"""Workflows as machine.yaml names them; those in other files are written beside it."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Collection, Iterator, Mapping
from itertools import count
from pathlib import Path, PurePosixPath
from typing import Any

from ..host.system.failure import Failure
from ..spec.fields import check_workflow_name
from ..spec.problems import shown
from . import entries
from .wanted import Workflow as Asked

FOLDER = "workflows"


def kept(
    asked: Collection[Asked], beside: Path, incomplete: Collection[str]
) -> Iterator[tuple[entries.Workflow, Any]]:
    """Each workflow's entry in a machine.yaml in the folder `beside`, and what to write there: None
    for a file that is one itself.

    Those whose needs aren't all known (`incomplete`, by name) don't stop a build.
    """
    taken: dict[str, Any] = {}
    names: set[str] = set()
    for each in asked:
        optional = each.name in incomplete
        notes = ["what isn't known is missing"] if optional else []
        document = None
        if each.embedded:
            document = each.document if each.runnable is None else each.runnable
            path = _free(beside, each.name, document, taken)
            taken[path] = document
            notes.append(f"from {shown(each.name, 100)}")
        else:
            path = _relative(each.name, beside)
        name = _name(path, names)
        stem = PurePosixPath(path).stem
        yield entries.Workflow(path, name if name != stem else "", optional, notes), document


def _name(path: str, names: set[str]) -> str:
    """One that no other has; noted in `names`."""
    stem = PurePosixPath(path).stem
    try:
        check_workflow_name(stem)
    except ValueError:
        stem = _plain(stem)
    name = next(
        each
        for number in count(1)
        if (each := f"{stem}-{number}" if number > 1 else stem).casefold() not in names
    )
    names.add(name.casefold())
    return name


def _plain(text: str) -> str:
    """Of letters, digits, and what else every name may have."""
    return re.sub(r"[^A-Za-z0-9 ._-]+", "-", text).strip(" .-_")[:80] or "workflow"


@contextlib.contextmanager
def written(documents: Mapping[str, Any], beside: Path) -> Iterator[None]:
    """Write workflows by their paths; they go again if the body fails. Raises Failure, OSError."""
    folder, new = beside / FOLDER, list[Path]()
    if documents and folder.exists() and not folder.is_dir():
        raise Failure(f"{folder} is no folder, and workflows are written there: move it away")
    try:
        for path, document in documents.items():
            file = beside / path
            if not file.exists():
                file.parent.mkdir(exist_ok=True)
                new.append(file)
                file.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        yield
    except BaseException:
        for file in new:
            file.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            folder.rmdir()
        raise


def _relative(name: str, beside: Path) -> str:
    file = Path(os.path.abspath(name))  # noqa: PTH100  links stay
    return str(file.relative_to(beside)) if file.is_relative_to(beside) else str(file)


def _free(beside: Path, name: str, document: Any, taken: Mapping[str, Any]) -> str:
    """Where a workflow can be written: a new file, or one that has it already."""
    stem = _plain(PurePosixPath(name).name.partition(".")[0])
    for number in count(1):
        path = f"{FOLDER}/{stem}{f'-{number}' if number > 1 else ''}.json"
        if path not in taken and (not (beside / path).exists() or _has(beside / path, document)):
            return path
    raise AssertionError("unreachable")


def _has(file: Path, document: Any) -> bool:
    try:
        return bool(json.loads(file.read_bytes()) == document)
    except (OSError, ValueError):
        return False
