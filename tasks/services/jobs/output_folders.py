"""Where the files lie that instances read and write."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from ...spec.layout import Layout
from .job_files import FOLDER, SOURCES


class OutputFolders:
    """Of this machine. Its functions wait for the disk."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def locate(self, name: str, subfolder: str, kind: str, instance: str = "") -> Path | None:
        """The file; None: it isn't there, or isn't in a folder of this kind.

        Files of jobs lie in one folder, whatever their kind; of other folders, that of `instance`
        is looked at first.
        """
        if "\0" in f"{name}{subfolder}" or Path(name).name != name or name == SOURCES:
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
        elif kind in ("output", "temp") and PurePosixPath(subfolder).parts[:1] == (FOLDER,):
            yield "", outputs
        elif kind == "output":
            yield from ((each.name, each) for each in outputs.glob("*") if each.name != FOLDER)
        elif kind == "temp":
            instances = self._layout.instance(0).parent.glob("*")
            yield from ((each.name, each / "temp") for each in instances)
