"""The files of this machine's predecessor: config_nodes.json and static-models.json.

Its third, comfy_dir_config.yaml, has the format of extra_model_paths.yaml. Source of the formats:
its installer. It resolved the sources of static-models.json against the workspace, while they lie
in `sd_models` there; both are tried.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..spec.urls import parse_remote, repository_name
from .entries import ModelFile, Node
from .values import below_models, mapping, text
from .wanted import Wanted

SHARED, STORE = "shared", "sd_models"


def is_nodes(document: Any) -> bool:
    """Whether it is a config_nodes.json, in one of its three shapes."""
    entries = _entries(document)
    return bool(entries) and all(text(each.get("url")) for each in entries)


def is_models(document: Any) -> bool:
    """Whether it is a static-models.json, in one of its two shapes."""
    if isinstance(document, dict) and isinstance(document.get("symlinks"), list):
        return True
    return isinstance(document, list) and all(
        isinstance(each, dict) and "url" in each and "type" in each for each in document
    ) and bool(document)  # fmt: skip


def of_nodes(document: Any) -> Wanted:
    left_out: list[str] = []
    return Wanted(nodes=[*_nodes(_entries(document), left_out)], left_out=left_out)


def of_models(document: Any, file: Path) -> Wanted:
    """What a static-models.json names; `file` is where it lies. Raises OSError."""
    left_out: list[str] = []
    if isinstance(document, dict):
        models = [*_links(document["symlinks"], file, left_out)]
    else:
        models = [*_downloads(document, left_out)]
    return Wanted(models=models, left_out=left_out)


def _entries(document: Any) -> list[Mapping[str, Any]]:
    if isinstance(document, dict):
        listed = document.get("custom_nodes", document.get("nodes"))
        if listed is None and all(isinstance(each, dict) for each in document.values()):
            listed = [{**each, "name": name} for name, each in document.items()]
        document = listed
    entries = document if isinstance(document, list) else []
    return [*entries] if all(isinstance(each, dict) for each in entries) else []


def _nodes(entries: list[Mapping[str, Any]], left_out: list[str]) -> Iterator[Node]:
    for entry in entries:
        url, name = text(entry.get("url")), text(entry.get("name"))
        try:
            remote = parse_remote(url)
        except ValueError as error:
            left_out.append(f"custom node {name or url!r}: {error}")
            continue
        yield Node(
            url=remote.url,
            ref=text(entry.get("commit")) or text(entry.get("branch")) or (remote.ref or ""),
            name="" if name == repository_name(remote.url) else name,
            requirements=entry.get("requirements") is True,
            env={str(key): _reference(value) for key, value in mapping(entry.get("env")).items()},
            script=text(entry.get("custom_script")),
        )


def _reference(value: Any) -> str:
    """`${NAME}`, of a variable's name too: it meant the same."""
    written = str(value)
    return f"${{{written}}}" if re.fullmatch(r"[A-Z][A-Z0-9_]*", written) else written


def _links(entries: Any, file: Path, left_out: list[str]) -> Iterator[ModelFile]:
    place = Path(os.path.abspath(file)).parent  # noqa: PTH100  links stay
    workspace = place.parent if place.name == SHARED else place
    for each in entries if isinstance(entries, list) else ():
        source, target = text(mapping(each).get("source")), text(mapping(each).get("target"))
        if not source or not target:
            continue
        places = [workspace / STORE / source, workspace / source]
        found = next(filter(_exists, places), None)
        if found is None:
            left_out.append(f"the source of {target} isn't at {places[0]} or {places[1]}")
        yield ModelFile(
            below_models(target) or target,
            source=str(found or places[0]),
            optional=found is None,
        )


def _exists(place: Path) -> bool:
    try:
        return place.exists()
    except (OSError, ValueError):
        # Too long a name, for one.
        return False


def _downloads(entries: list[Any], left_out: list[str]) -> Iterator[ModelFile]:
    for entry in entries:
        name, url = text(entry.get("name")), text(entry.get("url"))
        folder = "/".join(filter(None, [text(entry.get("type")), text(entry.get("subfolder"))]))
        if name and url and folder:
            yield ModelFile(f"{folder}/{name}", url=url)
        else:
            left_out.append(f"model {name or url or '?'} has no name, url or type")
