"""ComfyUI-Manager's snapshots, and comfy-cli's comfy-lock.yaml, which holds one.

Source of the formats: `get_current_snapshot` in ComfyUI-Manager 3.4's manager_core.py, and "format
of comfy-lock.yaml" in comfy-cli 1.23's README and `save_yaml` of its
workspace_manager.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from ..spec.urls import parse_remote
from .entries import Line, ModelFile, Node
from .values import below_models, listing, mapping, text
from .wanted import Wanted

OWN_FILE = "websocket_image_save.py"
"""ComfyUI's own custom node."""
SHA256 = r"[0-9a-f]{64}"
PARTS = frozenset(["git_custom_nodes", "cnr_custom_nodes", "file_custom_nodes"])
TYPES = {
    "checkpoint": "checkpoints", "checkpoints": "checkpoints", "lora": "loras", "vae": "vae",
    "controlnet": "controlnet", "upscaler": "upscale_models", "embedding": "embeddings",
    "textualinversion": "embeddings", "diffuser": "diffusers", "unet": "diffusion_models",
    "clip": "text_encoders",
}  # fmt: skip
"""A model's type in comfy-lock.yaml → its folder."""


def is_snapshot(document: Any) -> bool:
    return isinstance(document, dict) and not PARTS.isdisjoint(document)


def is_comfy_lock(document: Any) -> bool:
    """Whether it is one of comfy-cli's, as its README has them or as it writes them itself."""
    if not isinstance(document, dict):
        return False
    has_basics = "basics" in document and isinstance(document.get("models"), list)
    return has_basics or is_snapshot(document.get("custom_nodes"))


def of_snapshot(document: Mapping[str, Any]) -> Wanted:
    """What a snapshot holds."""
    commit, pips = text(document.get("comfyui")), mapping(document.get("pips"))
    left_out: list[str] = []
    remarks: list[str] = []
    nodes = [*_of_git(mapping(document.get("git_custom_nodes")), left_out, remarks)]
    for name, version in mapping(document.get("cnr_custom_nodes")).items():
        nodes.append(Node(id=str(name), version=text(version)))
    for file in listing(document.get("file_custom_nodes")):
        name = text(mapping(file).get("filename"))
        if name != OWN_FILE:
            left_out.append(
                f"{name or 'a custom node'} is a single file, which only its folder has"
            )
    return Wanted(
        comfyui=("", commit) if commit else None,
        nodes=nodes,
        packages=[*_packages(pips)],
        preferences=_versions(pips),
        left_out=left_out,
        remarks=remarks,
    )


def of_comfy_lock(document: Mapping[str, Any]) -> Wanted:
    """The snapshot in it, and its models."""
    snapshot = of_snapshot(mapping(document.get("custom_nodes")))
    left_out = [*snapshot.left_out]
    models = [
        model
        for entry in listing(document.get("models"))
        for model in _models(mapping(entry), left_out)
    ]
    return replace(snapshot, models=models, left_out=left_out)


def _of_git(entries: Mapping[str, Any], left_out: list[str], remarks: list[str]) -> Iterator[Node]:
    for url, entry in entries.items():
        about = mapping(entry)
        try:
            parse_remote(url)
        except ValueError as error:
            left_out.append(f"custom node {url!r}: {error}")
            continue
        if about.get("disabled") is True:
            remarks.append(f"{url} is disabled there")
        else:
            yield Node(url=url, ref=text(about.get("hash")))


def _packages(pips: Mapping[str, Any]) -> Iterator[Line]:
    """Those that are no index's: from a repository or an address, not from a file."""
    for name, address in pips.items():
        if isinstance(address, str) and re.match(r"(git\+)?https?://", address):
            yield Line(f"{name} @ {address}")


def _versions(pips: Mapping[str, Any]) -> dict[str, str]:
    exact = (re.fullmatch(r"([\w.-]+)==([^\s;]+)", str(name)) for name in pips)
    return {found[1]: found[2] for found in exact if found}


def _models(entry: Mapping[str, Any], left_out: list[str]) -> Iterator[ModelFile]:
    name, url = text(entry.get("model")), text(entry.get("url"))
    paths = [text(mapping(each).get("path")) for each in listing(entry.get("paths"))]
    hashes = [mapping(each) for each in listing(entry.get("hashes"))]
    said = [text(each.get("hash")) for each in hashes if text(each.get("type")).upper() == "SHA256"]
    said += [text(entry.get("hash"))]
    sha256 = next((each.lower() for each in said if re.fullmatch(SHA256, each, re.I)), "")
    folder = TYPES.get(text(entry.get("type")).casefold(), text(entry.get("type")))
    targets = [target for path in paths if (target := below_models(path))]
    if not targets and folder and name:
        targets = [f"{folder}/{name}"]
    if not url or not targets:
        lacking = "no url" if not url else "no path below a models folder"
        left_out.append(f"model {name or url or '?'} has {lacking}")
        return
    for target in targets:
        yield ModelFile(target, url=url, sha256=sha256)
