"""What ComfyUI says that a running job has made, by the names that it will have in the end.

Several instances may write files of one name; only the folder of the job tells them apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .output_files import JOBS

KINDS = ("output", "temp")


def placed(said: dict[str, Any], job: str) -> dict[str, Any]:
    """The message with the job's folder as that of its files, if it speaks of what was made."""
    data = said.get("data")
    if said.get("type") != "executed" or not isinstance(data, dict):
        return said
    return {**said, "data": {**data, "output": _placed(data.get("output"), f"{JOBS}/{job}")}}


def made_as(outputs: Any, name: str) -> tuple[str, str] | None:
    """The subfolder and type with which the instance made the file of this name; None: it hasn't
    said that it did."""
    return next(((sub, kind) for sub, kind, each in _files(outputs) if each == name), None)


def _placed(value: Any, folder: str) -> Any:
    if isinstance(value, list):
        return [_placed(each, folder) for each in value]
    if not isinstance(value, dict):
        return value
    if _is_file(value):
        return {**value, "subfolder": folder}
    return {key: _placed(each, folder) for key, each in value.items()}


def _files(value: Any) -> Iterator[tuple[str, str, str]]:
    if isinstance(value, list):
        for each in value:
            yield from _files(each)
    elif isinstance(value, dict) and _is_file(value):
        yield str(value.get("subfolder") or ""), value["type"], value["filename"]
    elif isinstance(value, dict):
        yield from _files([*value.values()])


def _is_file(value: dict[str, Any]) -> bool:
    return value.get("type") in KINDS and isinstance(value.get("filename"), str)
