"""Workflow files: prompts in the format of ComfyUI's API, and what workflows of any format need."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeGuard

from . import workflow_needs
from .fields import check_path
from .model import SMOKE
from .paths import absolute
from .workflow_needs import Needs

Prompt = dict[str, dict[str, Any]]
"""Node id → `class_type` and `inputs`; an input that is a list links to another node."""

VARIED = ("seed", "noise_seed", "color")
"""Inputs that may have any value; changing one keeps ComfyUI from using its cache."""
EXPORT = "in ComfyUI, export it with Workflow > Export (API)"
SAVE = "in ComfyUI, save it with Workflow > Save, or Export (API)"
MAX_BYTES = 20_000_000


def check(
    health: Mapping[Any, Any], folder: Path, environ: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """Field of machine.yaml's `health` → what is wrong with its workflow."""
    for name in ("warmup", "canary"):
        text = health.get(name)
        if not isinstance(text, str) or text == str(SMOKE):
            continue
        try:
            path = absolute(folder, check_path(text), environ)
            if not varies(read(path)) and name == "canary":
                raise ValueError(
                    f"{path} has no number as {', '.join(VARIED[:-1])} or {VARIED[-1]}: "
                    "nothing in it can vary, and ComfyUI would answer from its cache"
                )
        except ValueError as error:
            yield name, str(error)


def read(path: Path) -> Prompt:
    """The prompt in a file. Raises ValueError: one line with the file, the problem and advice."""
    text = content(path)
    try:
        return parse(text)
    except ValueError as error:
        raise ValueError(f"{path} {error}") from None


def document(path: Path) -> Any:
    """What is in a workflow's file, in whichever format. Raises ValueError as `read` does."""
    text = content(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError(f"{path} isn't JSON: {SAVE}") from None


def needs(path: Path) -> Needs:
    """What a workflow needs. Raises ValueError as `read` does."""
    found = document(path)
    try:
        return workflow_needs.of(found)
    except (ValueError, RecursionError):
        raise ValueError(f"{path} isn't a workflow of ComfyUI: {SAVE}") from None


def content(path: Path) -> bytes:
    """Raises ValueError as `read` does."""
    try:
        if not path.is_file():
            what = "isn't a file" if path.exists() else "is not there"
            raise ValueError(f"{path} {what}: put the workflow there, in an image as well")
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"{path} is larger than 20 MB, so it isn't a workflow: {EXPORT}")
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} can't be read: {error.strerror}") from None


def parse(text: bytes) -> Prompt:
    """The prompt in a text. Raises ValueError with the problem and advice."""
    try:
        prompt = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError(f"isn't JSON: {EXPORT}") from None
    if isinstance(prompt, dict) and isinstance(prompt.get("nodes"), list):
        raise ValueError(f"is a workflow as the page saves it, not in API format: {EXPORT}")
    if not isinstance(prompt, dict) or not prompt or not all(map(_is_node, prompt.values())):
        raise ValueError(f"isn't a workflow in API format: {EXPORT}")
    return prompt


def _is_node(node: Any) -> bool:
    return (
        isinstance(node, dict)
        and isinstance(node.get("class_type"), str)
        and isinstance(node.get("inputs"), dict)
    )


def can_vary(name: str, value: Any) -> TypeGuard[int]:
    """Whether an input is one of VARIED; a link to another node is a list."""
    return name in VARIED and isinstance(value, int) and not isinstance(value, bool)


def varies(prompt: Prompt) -> bool:
    """Whether a prompt has an input that can vary."""
    return any(can_vary(*each) for node in prompt.values() for each in node["inputs"].items())
