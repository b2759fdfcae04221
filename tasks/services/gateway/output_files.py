"""The files that a job has made: what its record names, and where they lie."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ...spec.layout import Layout
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


class OutputFolders:
    """Where instances write. Its functions wait for the disk."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def locate(self, name: str, subfolder: str, kind: str, instance: str = "") -> Path | None:
        """The file; None: it isn't there, or isn't in a folder of this kind.

        Files of jobs lie in one folder, whatever their kind; of other folders, that of `instance`
        is looked at first.
        """
        if "\0" in f"{name}{subfolder}" or Path(name).name != name:
            return None
        folders = self._folders(kind, subfolder)
        for _, folder in sorted(folders, key=lambda each: (not instance.endswith(each[0]), each)):
            path = (folder / subfolder / name).resolve()
            if path.is_relative_to(folder.resolve()) and path.is_file():
                return path
        return None

    def _folders(self, kind: str, subfolder: str) -> Iterator[tuple[str, Path]]:
        """All folders of this kind, each with the end of the name of its instance."""
        outputs = self._layout.outputs(0).parent
        if kind == "input":
            yield "", self._layout.inputs
        elif kind in ("output", "temp") and PurePosixPath(subfolder).parts[:1] == (JOBS,):
            yield "", outputs
        elif kind == "output":
            yield from ((each.name, each) for each in outputs.glob("*") if each.name != JOBS)
        elif kind == "temp":
            instances = self._layout.instance(0).parent.glob("*")
            yield from ((each.name, each / "temp") for each in instances)
