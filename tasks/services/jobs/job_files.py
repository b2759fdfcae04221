"""The files of a job, in a folder of its own: links to what its instance wrote.

They are linked and not moved. ComfyUI numbers files by those that are there, and answers an equal
job from its cache with the files of the first: a name must stay that file's.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

from ...host.system import files
from ...spec.layout import Layout

FOLDER = "jobs"
"""In the folder of outputs."""
SOURCES = ".sources.json"
"""In the folder of a job: its files, and where the instance wrote each."""


class Missing(Exception):  # noqa: N818  reads as what is the case
    """The instance names a file that isn't there: its cache is older than its folder."""


def folder_of(layout: Layout, job: str) -> Path:
    return layout.outputs(0).parent / FOLDER / job


def collect(layout: Layout, gpu: int, job: str, outputs: dict[str, Any]) -> dict[str, Any]:
    """Link the files that `outputs` name, and return it with their new places.

    Raises Missing, and OSError.
    """
    places = {"output": layout.outputs(gpu), "temp": layout.instance(gpu) / "temp"}
    target = folder_of(layout, job)
    taken: dict[Path, str] = {}

    def placed(value: Any) -> Any:
        if isinstance(value, list):
            return [placed(each) for each in value]
        if not isinstance(value, dict):
            return value
        folder = places.get(str(value.get("type")))
        if folder is None or not isinstance(value.get("filename"), str):
            return {key: placed(each) for key, each in value.items()}
        source = _inside(folder, str(value.get("subfolder", "")), value["filename"])
        if source not in taken:
            taken[source] = _free_name(source.name, taken.values())
            _link(source, target / taken[source])
        return {**value, "filename": taken[source], "subfolder": f"{FOLDER}/{job}"}

    found = {node: placed(shown) for node, shown in outputs.items()}
    if taken:
        sources = {name: str(source) for source, name in taken.items()}
        files.write_receipt(target / SOURCES, sources)
    return found


def files_of(layout: Layout, job: str) -> list[Path]:
    """The files of a job that are here."""
    with suppress(FileNotFoundError):
        return [path for path in folder_of(layout, job).iterdir() if path.name != SOURCES]
    return []


def drop(layout: Layout, job: str) -> None:
    """Remove the files of a job, here and where its instance wrote them. Raises OSError."""
    folder = folder_of(layout, job)
    for name, source in files.read_receipt(folder / SOURCES).items():
        with suppress(OSError, TypeError, ValueError):
            # By that name there may be another file by now.
            if Path(source).samefile(folder / name):
                Path(source).unlink()
    files.remove(folder)


def sweep(layout: Layout, known: Collection[str], keep: float) -> None:
    """Remove the files of jobs but these that are older than `keep` seconds. A store that was lost
    knows no job, and takes no results of the last days with it. Raises OSError."""
    try:
        found = [*folder_of(layout, "").iterdir()]
    except FileNotFoundError:
        return
    for folder in found:
        if folder.name not in known and time.time() - folder.lstat().st_mtime > keep:
            drop(layout, folder.name)


def _inside(folder: Path, *parts: str) -> Path:
    """Raises Missing for a path that leads elsewhere: a node may say anything."""
    found = Path(os.path.normpath(folder.joinpath(*parts)))
    if not found.is_relative_to(folder) or not found.is_file():
        raise Missing("/".join(parts))
    return found


def _free_name(name: str, taken: Collection[str]) -> str:
    path, number, found = Path(name), 2, name
    while found in taken:
        found, number = f"{path.stem}-{number}{path.suffix}", number + 1
    return found


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    files.remove(target)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
