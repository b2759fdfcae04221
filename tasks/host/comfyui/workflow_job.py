"""A workflow of machine.yaml as a job of an instance: what the instance lacks of it, what it is
sent, and the files that come out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...spec.workflow_file import EXPORT, Prompt
from ...spec.workflow_needs import Needs
from ..system.failure import Failure
from . import page_prompt, workflow_state
from .page_graph import NotConvertible
from .workflow_state import WantedWorkflow


@dataclass(frozen=True)
class Folders:
    """Where an instance writes."""

    output: Path
    temp: Path


def lacks(name: str, needs: Needs, info: Mapping[str, Any]) -> str:
    """What of a workflow an instance lacks, by its `/object_info`; empty: nothing."""
    classes = {kind: use.id for kind, use in needs.classes.items()}
    choices = {
        model.kind: workflow_state.choices_of(info[model.kind])
        for model in needs.models
        if model.kind in info
    }
    wanted = WantedWorkflow(name, classes, needs.models)
    return workflow_state.look([wanted], info.keys(), choices)[0].reason


def prompt(document: Mapping[str, Any], info: Mapping[str, Any]) -> Prompt:
    """What the instance is sent. Raises Failure where what the page would send can't be known."""
    if isinstance(document.get("nodes"), list):
        try:
            return page_prompt.convert(document, info)
        except NotConvertible as problem:
            raise Failure(f"it can't be sent as the page saved it: {problem}; {EXPORT}") from None
    inner = document.get("prompt")
    graph = inner if isinstance(inner, dict) and "class_type" not in inner else document
    return {
        number: {**node, "inputs": dict(node.get("inputs") or {})} for number, node in graph.items()
    }


def files(entry: Mapping[str, Any], folders: Folders) -> list[Path]:
    """The files that a finished job names in its history entry. Raises Failure when one isn't
    there, is empty, or when there is none."""
    found = [*dict.fromkeys(_named(entry, folders))]
    missing = [str(file) for file in found if not file.is_file() or not file.stat().st_size]
    if missing or not found:
        where = ", ".join(missing) or folders.output
        raise Failure(f"the job succeeded but wrote nothing: {where}")
    return found


def _named(entry: Mapping[str, Any], folders: Folders) -> Iterator[Path]:
    for output in entry["outputs"].values():
        for values in output.values():
            for each in values if isinstance(values, list) else ():
                if isinstance(each, dict) and isinstance(each.get("filename"), str):
                    top = folders.temp if each.get("type") == "temp" else folders.output
                    yield top / str(each.get("subfolder") or "") / each["filename"]
