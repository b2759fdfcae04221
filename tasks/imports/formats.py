"""Which of the formats a file has, told by what is in it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..spec.node_uses import uses
from ..spec.problems import shown
from . import comfy_packs, embedded, predecessor, provisioning, snapshots
from .model_roots import of_sections
from .wanted import Wanted, Workflow, noted

MAX_BYTES = 64_000_000
"""Of a file that is text."""
KINDS = (
    "a workflow or what ComfyUI made of one, a snapshot of ComfyUI-Manager, a comfy-lock.yaml, an "
    "extra_model_paths.yaml, a .cpack.zip, a provisioning manifest of vast.ai, or a "
    "config_nodes.json or static-models.json"
)
TEXT = frozenset([".json", ".yaml", ".yml"])
_READERS: tuple[tuple[Callable[[Any], bool], Callable[[Any, Path], Wanted]], ...] = (
    (snapshots.is_snapshot, lambda document, _: snapshots.of_snapshot(document)),
    (snapshots.is_comfy_lock, lambda document, _: snapshots.of_comfy_lock(document)),
    (provisioning.is_manifest, lambda document, _: provisioning.of_manifest(document)),
    (predecessor.is_models, predecessor.of_models),
    (predecessor.is_nodes, lambda document, _: predecessor.of_nodes(document)),
)


def read(file: Path, name: str) -> Wanted:
    """What a file asks for; every entry says that it is for `name`.

    Raises OSError, and ValueError with one line for a file that has none of the formats.
    """
    if file.exists() and not file.is_file():
        raise ValueError(f"{name} is no file")
    found = _of_text(file, name) if file.suffix.lower() in TEXT else _of_bytes(file, name)
    if found is None:
        raise ValueError(f"{name} is none of the files that import reads: {KINDS}")
    note = f"for {shown(name, 100)}"
    return replace(
        found,
        nodes=noted(found.nodes, note),
        packages=noted(found.packages, note),
        models=noted(found.models, note),
        roots=noted(found.roots, note),
    )


def _of_bytes(file: Path, name: str) -> Wanted | None:
    if (archive := comfy_packs.read(file, name)) is not None:
        return replace(archive, workflows=[_checked(each) for each in archive.workflows])
    try:
        workflow = embedded.of_file(file, name)
    except embedded.MissingReaderError as missing:
        raise ValueError(
            f"{name} can't be read without the package {missing}: uv tool install "
            "'comfy-machine[import]'"
        ) from None
    if workflow is None:
        raise ValueError(f"{name} holds no workflow: it was saved without, or by another program")
    return Wanted(workflows=[_checked(workflow)])


def _of_text(file: Path, name: str) -> Wanted | None:
    if file.stat().st_size > MAX_BYTES:
        raise ValueError(f"{name} is larger than 64 MB, which no such file is")
    document = _parsed(file, name)
    for is_one, reader in _READERS:
        if is_one(document):
            return reader(document, file)
    if (workflow := embedded.of_document(document, name)) is not None:
        return Wanted(workflows=[_checked(workflow)])
    if _is_workflow(document):
        return Wanted(workflows=[Workflow(name, document)])
    return of_sections(document, file)


def _parsed(file: Path, name: str) -> Any:
    text = file.read_bytes()
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        if file.suffix.lower() == ".json":
            why = str(error) if isinstance(error, json.JSONDecodeError) else _why(error)
            raise ValueError(f"{name} isn't JSON: {why}") from None
    import yaml

    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else f": {_why(error)}"
        raise ValueError(f"{name} isn't YAML{where}") from None


def _why(error: BaseException) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, UnicodeError):
        return "it isn't UTF-8"
    return "it holds a date or a number that can't be read"


def _is_workflow(document: Any) -> bool:
    try:
        uses(document)
    except (ValueError, RecursionError):
        return False
    return True


def _checked(workflow: Workflow) -> Workflow:
    """Raises ValueError for what is no workflow."""
    if not _is_workflow(workflow.document):
        raise ValueError(f"what {workflow.name} holds is no workflow of ComfyUI")
    if workflow.runnable is not None and not _is_workflow(workflow.runnable):
        return replace(workflow, runnable=None)
    return workflow
