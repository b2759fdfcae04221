"""Archives of comfy-pack, `.cpack.zip`: a snapshot, a workflow and its models' hashes.

Source of the format: comfy-pack 0.4's package.py and nodes/api.py; 0.1 named its custom nodes in a
list.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

from ..spec.problems import shown
from .entries import ModelFile, Node
from .snapshots import of_snapshot
from .values import below_models, listing, mapping, text
from .wanted import Wanted, Workflow

SNAPSHOT, PAGE, API = "snapshot.json", "workflow.json", "workflow_api.json"
MAX_BYTES = 64_000_000
"""Of a document in it."""


_DAMAGED = (EOFError, NotImplementedError, RecursionError, RuntimeError, ValueError, zlib.error)
"""What zipfile and json raise, for what is damaged, encrypted, or packed in another way."""


def read(file: Path, name: str) -> Wanted | None:
    """What a file asks for; None: it is no such archive. Raises OSError, and ValueError for one
    that is damaged."""
    try:
        with ZipFile(file) as archive:
            snapshot = _document(archive, SNAPSHOT)
            page, api = _document(archive, PAGE), _document(archive, API)
            files = [each for each in archive.namelist() if each.startswith("input/")]
    except BadZipFile:
        return None
    except _DAMAGED as error:
        raise ValueError(f"{name} can't be read: {shown(str(error), 200)}") from None
    if not isinstance(snapshot, dict):
        raise ValueError(f"{name} has no {SNAPSHOT}, so it is no archive of comfy-pack")
    found = of_snapshot(snapshot)
    left_out = [*found.left_out]
    if inputs := [each for each in files if not each.endswith("/")]:
        left_out.append(f"{len(inputs)} files below input/: unpack them into the inputs folder")
    remarks = [*found.remarks]
    nodes = [*found.nodes, *_listed_nodes(snapshot, remarks)]
    models = [
        model
        for each in listing(snapshot.get("models"))
        for model in _model(mapping(each), left_out)
    ]
    document = page if page is not None else api
    workflows = [Workflow(name, document, api, embedded=True)] if document is not None else []
    return replace(
        found, nodes=nodes, models=models, workflows=workflows, left_out=left_out, remarks=remarks
    )


def _document(archive: ZipFile, name: str) -> Any:
    """The parsed JSON; None without it."""
    try:
        if archive.getinfo(name).file_size > MAX_BYTES:
            raise ValueError(f"{name} in it is larger than 64 MB")
        with archive.open(name) as document:
            # Its header may promise less than it holds.
            return json.loads(document.read(MAX_BYTES + 1)[:MAX_BYTES])
    except KeyError:
        return None


def _listed_nodes(snapshot: Mapping[str, Any], remarks: list[str]) -> Iterator[Node]:
    for each in map(mapping, listing(snapshot.get("custom_nodes"))):
        url = text(each.get("url"))
        if each.get("disabled") is True:
            remarks.append(f"{url} is disabled there")
        elif url:
            yield Node(url=url, ref=text(each.get("commit_hash")))


def _model(entry: Mapping[str, Any], left_out: list[str]) -> Iterator[ModelFile]:
    source = mapping(entry.get("source"))
    name, target = text(entry.get("filename")), below_models(text(entry.get("filename")))
    url = text(source.get("url")) or text(source.get("download_url"))
    if entry.get("disabled") is True or not target:
        return
    if url:
        yield ModelFile(target, url=url, sha256=text(entry.get("sha256")))
    else:
        left_out.append(f"model {name}, sha256 {text(entry.get('sha256'))}: it has no address")
