"""What machine.yaml accepts of contents that come from other people's files."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...host.system.failure import Failure
from ...host.system.redaction import redact
from ...spec import SpecError, load
from ...spec.problems import Problem, shown
from .new_machine_file import COMFYUI, Contents, Hardware

LISTS = {
    "custom_nodes": ("nodes", "custom node"),
    "python.packages": ("packages", "package"),
    "models.files": ("files", "model"),
    "models.extra_roots": ("roots", "folder of models"),
    "workflows": ("workflows", "workflow"),
    "instances.args": ("args", "argument"),
}
"""Field of machine.yaml → the contents' list, and what an entry of it is."""
ROUNDS = 5
"""What was refused may have hidden more."""
_ENTRY = re.compile(r"(.+?)\[(\d+)\]")


def accepted(contents: Contents, file: Path, hardware: Hardware) -> Contents:
    """The contents without what the loader refuses, which is named as missing.

    Raises Failure where that isn't an entry, and OSError.
    """
    for _ in range(ROUNDS):
        problems = _problems(contents.text(hardware), file)
        if not problems:
            return contents
        contents = _without(contents, problems)
    raise Failure(f"what was read makes no machine.yaml: {problems[0]}")


def _problems(text: str, file: Path) -> list[Problem]:
    """What the loader says of a text in the place of a machine file. Raises OSError."""
    draft = file.with_name(f".{file.stem}.{os.getpid()}.draft.yaml")
    try:
        with draft.open("x", encoding="utf-8") as stream:
            stream.write(text)
        load(draft, {})
    except SpecError as error:
        return [each for each in error.problems if each.file.endswith(draft.name)]
    finally:
        with contextlib.suppress(FileNotFoundError):
            draft.unlink()
    return []


def _without(contents: Contents, problems: Sequence[Problem]) -> Contents:
    """Raises Failure."""
    refused: dict[str, dict[int, str]] = {}
    changes: dict[str, Any] = {}
    missing = [*contents.missing]
    for problem in problems:
        found = _ENTRY.match(problem.path)
        if found and found[1] in LISTS:
            refused.setdefault(found[1], {}).setdefault(int(found[2]), problem.message)
        elif problem.path.startswith("comfyui.") and contents.comfyui != COMFYUI:
            missing.append(f"ComfyUI {shown(contents.comfyui.ref)}: {problem.message}")
            changes["comfyui"] = COMFYUI
        else:
            raise Failure(f"what was read makes no machine.yaml: {problem.path}: {problem.message}")
    for field, entries in refused.items():
        name, what = LISTS[field]
        listed = [*getattr(contents, name)]
        changes[name] = [each for number, each in enumerate(listed) if number not in entries]
        missing += _named(what, listed, entries)
    return replace(contents, missing=missing, **changes)


def _named(what: str, listed: Sequence[Any], refused: dict[int, str]) -> Iterator[str]:
    for number, why in sorted(refused.items()):
        entry = listed[number]
        keys = ("name", "url", "id", "text", "target", "path")
        name = entry if isinstance(entry, str) else next(
            filter(None, (getattr(entry, key, "") for key in keys)), "?"
        )  # fmt: skip
        yield redact(f"{what} {shown(name, 100)}: {why}")
