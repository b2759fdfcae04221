"""All that an installation of ComfyUI says about the machine that it is."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path

from ..host.comfyui import installations
from ..host.repositories import git
from ..host.system.failure import Failure
from ..imports import model_paths
from ..imports.model_paths import NODES, ModelPaths
from ..lock import requirements
from . import model_inventory, origins, python_packages, start_arguments, start_scripts
from .model_inventory import Inventory
from .origins import Origin
from .python_packages import Environment
from .start_arguments import Arguments
from .start_scripts import Start


@dataclass(frozen=True)
class Findings:
    """What is found; nothing is hashed yet."""

    comfyui: Origin
    nodes: tuple[Origin, ...]
    start: Start | None
    """How it is started, where that is known."""
    other_starts: tuple[Path, ...]
    arguments: Arguments
    environment: Environment | None
    required: Mapping[str, AbstractSet[str]]
    """Package that ComfyUI's and the nodes' own files require → its extras."""
    inventory: Inventory
    user: Path | None
    """The folder with settings and workflows."""
    inputs: int
    """How many files are in its input folder."""
    left_out: tuple[str, ...]
    """What isn't taken over, and why."""


def read(folder: Path, python: Path | None, home: Path, usual: str) -> Findings:
    """Read the installation in a folder. `python` is its Python, where that is known; `usual`
    ComfyUI's repository. Raises Failure and OSError."""
    comfyui = _locate(folder)
    around = [comfyui, *(each for each in comfyui.parents if each.is_relative_to(folder))]
    starts = start_scripts.find(around, home)
    start = next(iter(starts), None)
    arguments = start_arguments.read(start.words if start else ())
    bases = [comfyui, start.file.parent] if start else [comfyui]
    base = _place(arguments.folders.get("--base-directory"), bases) or comfyui
    sections = [*_model_paths(comfyui, arguments, bases)]
    folders = [
        base / "custom_nodes",
        *(each for section in sections for each in section.folders.get(NODES, ())),
    ]
    folders = [*dict.fromkeys(folders)]
    nodes, twice = _nodes(folders)
    tracked = _tracked(comfyui)
    models = _place(arguments.folders.get("--models-directory"), bases) or base / "models"
    user = _place(arguments.folders.get("--user-directory"), bases) or base / "user"
    inputs = _place(arguments.folders.get("--input-directory"), bases) or base / "input"
    return Findings(
        origins.of_comfyui(comfyui, usual),
        tuple(nodes.values()),
        start,
        tuple(each.file for each in starts[1:]),
        arguments,
        _environment(python, start, bases, [*around, comfyui.parent]),
        _required([comfyui, *(each.folder for each in nodes.values())]),
        model_inventory.look(models, sections, _below("models", tracked)),
        user if user.is_dir() and any(user.iterdir()) else None,
        len(set(_names(inputs)) - _below("input", tracked)),
        (*twice, *_not_nodes(folders)),
    )


def _locate(folder: Path) -> Path:
    if not folder.is_dir():
        raise Failure(f"{folder} is no folder")
    if ".machine" in folder.resolve().parts or (folder / ".machine").is_dir():
        raise Failure(f"{folder} was made from a machine.yaml already: copy that")
    found = installations.locate(folder)
    if not found:
        raise Failure(f"{folder} has no ComfyUI, a folder with main.py and comfy, in it")
    if len(found) > 1:
        raise Failure(f"{folder} has several: name one of {', '.join(map(str, found))}")
    return found[0]


def _place(text: str | None, bases: Sequence[Path]) -> Path | None:
    """A folder that an argument names: of the bases it may be relative to, where there is one."""
    places = [start_scripts.place(text, base) for base in bases] if text else []
    return next((place for place in places if place.exists()), next(iter(places), None))


def _model_paths(
    comfyui: Path, arguments: Arguments, bases: Sequence[Path]
) -> Iterator[ModelPaths]:
    own = comfyui / model_paths.FILE
    named = [_place(text, bases) for text in arguments.model_paths]
    for file in dict.fromkeys([own if own.is_file() else None, *named]):
        if file:
            yield from model_paths.read(file)


def _environment(
    python: Path | None, start: Start | None, bases: Sequence[Path], places: Sequence[Path]
) -> Environment | None:
    """Raises Failure where `python` is none."""
    if python:
        if found := python_packages.at(python):
            return found
        raise Failure(f"{python} is no Python, nor an environment of one")
    named = [start_scripts.place(start.python, base) for base in bases] if start else []
    for place in named if start and start.python else ():
        if os.path.lexists(place) and (found := python_packages.at(place)):
            return found
    return python_packages.find(places)


def _nodes(folders: Sequence[Path]) -> tuple[dict[str, Origin], list[str]]:
    """The custom nodes by name, and what to say of those whose name another one has."""
    found: dict[str, Origin] = {}
    twice = []
    for place in (each for folder in folders for each in installations.node_folders(folder)):
        name = place.name.casefold()
        if other := found.get(name):
            twice.append(f"{place}: {other.folder} has the same name")
        else:
            found[name] = origins.of_node(place)
    return found, twice


def _not_nodes(folders: Sequence[Path]) -> Iterator[str]:
    for folder in folders:
        for path in origins.turned_off(folder):
            yield f"{path}: turned off"
        for path in origins.single_files(folder):
            yield (
                f"{path}: a custom node in a single file. Move it to a folder of its own as "
                "__init__.py, and name that as path"
            )


def _required(folders: Sequence[Path]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for folder in folders:
        try:
            lines = requirements.read_checkout(None, folder).lines
        except (Failure, OSError):
            # A build will say so; here it only says what was installed for it.
            continue
        for line in lines:
            if line.name:
                extras = line.requirement.extras if line.requirement else ()
                found.setdefault(requirements.normalized(line.name), set()).update(extras)
    return found


def _tracked(comfyui: Path) -> frozenset[str]:
    if git.head(comfyui) is None:
        # ComfyUI's own, in a copy without a repository.
        names = (p.relative_to(comfyui).as_posix() for p in comfyui.glob("models/configs/*.yaml"))
        return frozenset(["input/example.png", *names])
    try:
        return frozenset(git.tracked(comfyui))
    except Failure:
        return frozenset()


def _below(folder: str, tracked: AbstractSet[str]) -> frozenset[str]:
    return frozenset(
        name.removeprefix(f"{folder}/") for name in tracked if name.startswith(f"{folder}/")
    )


def _names(folder: Path) -> Iterator[str]:
    for at, _, names in os.walk(folder):
        inside = Path(at).relative_to(folder)
        yield from ((inside / name).as_posix() for name in names if not name.startswith("."))
