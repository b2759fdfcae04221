"""Where model files are published: in ComfyUI's own templates, and in ComfyUI-Manager's list.

Source of the formats: comfyui-workflow-templates-json (MIT; each node's `properties.models`), and
ComfyUI-Manager 4, `model-list.json` with the folders of `model_dir_name_map` in its
manager_server.py. Neither is shipped.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..spec.node_uses import uses

MODELS = "model-list.json"
FOLDERS = {
    "checkpoint": "checkpoints", "checkpoints": "checkpoints", "unclip": "checkpoints",
    "text_encoders": "text_encoders", "clip": "text_encoders", "vae": "vae", "lora": "loras",
    "t2i-adapter": "controlnet", "t2i-style": "controlnet", "controlnet": "controlnet",
    "clip_vision": "clip_vision", "gligen": "gligen", "upscale": "upscale_models",
    "embedding": "embeddings", "embeddings": "embeddings", "unet": "diffusion_models",
    "diffusion_model": "diffusion_models",
}  # fmt: skip
"""Manager's type of a model → its folder, where the list says `default`."""

Evidence = Literal["workflow", "templates", "list"]


@dataclass(frozen=True)
class PublishedModel:
    """A file that can be downloaded."""

    folder: str
    """Below the models folder: `loras`, `loras/SDXL`."""
    name: str
    url: str
    evidence: Evidence
    sha256: str = ""


@dataclass(frozen=True)
class ModelCatalogue:
    """File name, in lower case → where it is published, the most trusted first."""

    models: Mapping[str, tuple[PublishedModel, ...]] = field(default_factory=dict)

    def find(self, name: str) -> tuple[PublishedModel, ...]:
        """Of a name as a workflow has it: with folders, and with either slash."""
        return self.models.get(last_part(name).casefold(), ())


def last_part(name: str) -> str:
    return name.replace("\\", "/").rpartition("/")[2]


def collected(published: Iterable[PublishedModel]) -> ModelCatalogue:
    found: dict[str, list[PublishedModel]] = {}
    for each in published:
        known = found.setdefault(each.name.casefold(), [])
        if not any((one.folder, one.url) == (each.folder, each.url) for one in known):
            known.append(each)
    return ModelCatalogue({name: tuple(each) for name, each in found.items()})


def read(file: Path) -> Iterator[PublishedModel]:
    """Manager's list. Raises OSError, and ValueError for what isn't one."""
    document = json.loads(file.read_text(encoding="utf-8"))
    entries = document.get("models") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise ValueError(f"{file} is no list of ComfyUI-Manager")
    for entry in entries:
        if not isinstance(entry, dict):
            continue
        folder, name, url = (entry.get(each) for each in ("save_path", "filename", "url"))
        if folder == "default":
            folder = FOLDERS.get(str(entry.get("type")).lower())
        if all(isinstance(each, str) and each for each in (folder, name, url)):
            yield PublishedModel(str(folder), last_part(str(name)), str(url), "list")


def of_templates(folder: Path) -> Iterator[PublishedModel]:
    """What the templates in a folder name. Files that are no workflow are passed over."""
    for file in sorted(folder.glob("*.json")):
        try:
            found = uses(json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError, RecursionError):
            continue
        for use in found:
            yield from declared(use.models, "templates")


def declared(models: Iterable[Mapping[str, Any]], evidence: Evidence) -> Iterator[PublishedModel]:
    """The models that a node says it needs."""
    for each in models:
        name, url, folder = (each.get(key) for key in ("name", "url", "directory"))
        if not all(isinstance(value, str) and value for value in (name, url, folder)):
            continue
        is_sha256 = str(each.get("hash_type")).upper() == "SHA256"
        sha256 = str(each.get("hash") or "").lower() if is_sha256 else ""
        yield PublishedModel(str(folder), last_part(str(name)), str(url), evidence, sha256)
