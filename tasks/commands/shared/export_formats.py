"""The formats in which other tools keep a machine.

Source of the formats: ComfyUI-Manager 4.3, `get_current_snapshot` and `restore_snapshot` in its
manager_core.py; comfy-cli 1.23, "format of comfy-lock.yaml" in its README.md, whose `custom_nodes`
is a snapshot.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .built_machine import Built, BuiltModel


@dataclass(frozen=True)
class Format:
    """How a machine is written for a tool."""

    name: str
    says: str
    """What it is, in a few words."""
    text: Callable[[Built], str]
    lacks: str
    """What it has no place for, of any machine."""
    has_models: bool = False


def snapshot(built: Built) -> str:
    return json.dumps(_snapshot(built), indent=4) + "\n"


def comfy_lock(built: Built) -> str:
    import yaml

    models = [_model(each) for each in built.models]
    document = {"models": models, "custom_nodes": _snapshot(built)}
    text: str = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
    return text


def _snapshot(built: Built) -> dict[str, Any]:
    # Of two checkouts of one repository, the one that ComfyUI loads.
    repositories = sorted(built.repositories, key=lambda each: not each.disabled)
    return {
        "comfyui": built.comfyui,
        "git_custom_nodes": {
            each.url: {"hash": each.commit, "disabled": each.disabled} for each in repositories
        },
        "cnr_custom_nodes": dict(built.registered),
        "file_custom_nodes": [
            {"filename": name, "disabled": disabled} for name, disabled in built.files.items()
        ],
        "pips": dict(built.packages),
    }


def _model(model: BuiltModel) -> dict[str, Any]:
    folder, _, name = model.target.rpartition("/")
    hashes = [{"hash": model.sha256, "type": "SHA256"}] if model.sha256 else []
    return {
        "model": name,
        "url": model.url,
        "paths": [{"path": f"models/{model.target}"}],
        "hashes": hashes,
        "type": folder.partition("/")[0],
    }


FORMATS: Mapping[str, Format] = {
    each.name: each
    for each in (
        Format("snapshot", "ComfyUI-Manager's snapshot", snapshot,
               "models, instances, workers or settings of nodes"),
        Format("comfy-lock", "comfy-cli's comfy-lock.yaml", comfy_lock,
               "instances, workers or settings of nodes", has_models=True),
    )
}  # fmt: skip
"""By name."""
