"""What machine.yaml accepts of contents that come from other people's files."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
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
SETTINGS: dict[str, tuple[str, Any]] = {
    "python.torch": ("torch", ""),
    "instances.gpus": ("gpus", ()),
    "instances.listen": ("listen", "127.0.0.1"),
    "instances.port_start": ("port", 8188),
    "instances.user": ("user", ""),
}
"""Field of machine.yaml → the contents' field, and what it is otherwise."""
_ENTRY = re.compile(r"(.+?)\[(\d+)\]")


def accepted(contents: Contents, file: Path, hardware: Hardware) -> Contents:
    """The contents without what the loader refuses, which is named as missing.

    Raises Failure where that isn't an entry, and OSError.
    """
    contents = _in_utf8(contents)
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
        elif problem.path in SETTINGS:
            name, otherwise = SETTINGS[problem.path]
            missing.append(f"{problem.path} {getattr(contents, name)}: {problem.message}")
            changes[name] = otherwise
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
        yield redact(f"{what} {shown(_name(entry), 100)}: {why}")


def _name(entry: Any) -> str:
    """What an entry is called; what follows a ? in an address may be a secret."""
    if isinstance(entry, str):
        return entry
    names = (getattr(entry, key, "") for key in ("name", "target", "id", "text", "url", "path"))
    return str(next(filter(None, names), "?")).partition("?")[0]


def _in_utf8(contents: Contents) -> Contents:
    """Without the entries that hold what isn't UTF-8, which no machine.yaml can hold."""
    changes: dict[str, Any] = {}
    missing = [*contents.missing]
    for name, what in LISTS.values():
        listed = [*getattr(contents, name)]
        wrong = {number: "isn't UTF-8" for number, each in enumerate(listed) if not _is_utf8(each)}
        if wrong:
            changes[name] = [each for number, each in enumerate(listed) if number not in wrong]
            missing += _named(what, listed, wrong)
    for name in ("comfyui_path", "user"):
        if not _is_utf8(getattr(contents, name)):
            raise Failure(f"{shown(getattr(contents, name), 300)} isn't UTF-8: rename it")
    return replace(contents, missing=missing, **changes)


def _is_utf8(entry: Any) -> bool:
    text = entry if isinstance(entry, str) else repr(asdict(entry))
    # repr() escapes what can't be encoded.
    return not re.search(r"[\ud800-\udfff]|\\ud[89a-f][0-9a-f]{2}", text)
