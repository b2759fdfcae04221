"""The files that a job has made, as its record names them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..jobs.record import Record
from .asset_files import content_type

JOBS = "jobs"
"""The folder below which each job has one."""
KINDS = {
    "images": "image",
    "gifs": "video",
    "video": "video",
    "audio": "audio",
    "text": "text",
    "latents": "latent",
}
"""ComfyUI's name of a list of outputs → the kind of what is in it, where its name doesn't tell."""


@dataclass(frozen=True)
class OutputFile:
    """A file that a record names. Nothing says yet that it is there."""

    job: str
    node: str
    list: str
    name: str
    subfolder: str
    type: str
    instance: str = ""

    @property
    def id(self) -> str:
        """Tells it from all other files of all jobs, and says nothing of its path."""
        place = "\0".join((self.type, self.subfolder, self.name))
        return f"{self.job}.{hashlib.sha256(place.encode()).hexdigest()[:24]}"

    @property
    def content_type(self) -> str:
        return content_type(self.name)

    @property
    def kind(self) -> str:
        if self.name.endswith(".latent"):
            return "latent"
        first = self.content_type.partition("/")[0]
        return first if first in KINDS.values() else KINDS.get(self.list, "file")


def outputs_of(record: Record, outputs: Mapping[str, Any]) -> Iterator[OutputFile]:
    """All files of a job that these outputs name: node → list → files."""
    for node, lists in outputs.items():
        for name, items in lists.items() if isinstance(lists, dict) else ():
            for item in items if isinstance(items, list) else ():
                if isinstance(item, dict) and isinstance(item.get("filename"), str):
                    yield OutputFile(
                        job=record.id,
                        node=str(node),
                        list=str(name),
                        name=item["filename"],
                        subfolder=str(item.get("subfolder") or ""),
                        type=str(item.get("type") or "output"),
                        instance=record.instance,
                    )
