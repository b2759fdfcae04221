"""doit import: a machine.yaml for workflows, each line with what says so."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from doit.cmd_base import Command
from doit.exceptions import InvalidCommand

from ..engine.configuration import machine_file
from ..engine.outputs import GuardedCommand
from ..host.repositories import remotes
from ..host.system.failure import Failure
from ..host.system.program_files import PROGRAM
from ..imports import core_classes, gathered, model_catalogue, node_catalogue
from ..imports.gathered import Gathered, Package
from ..imports.node_catalogue import NodeCatalogue
from ..spec import node_uses
from ..spec.node_uses import NodeUse
from ..spec.problems import shown
from .shared.new_machine_file import COMFYUI, Contents, Hardware, ModelFile, Node, tell, write

CATALOGUE = "https://github.com/Comfy-Org/ComfyUI-Manager.git"
TEMPLATES = "comfyui_workflow_templates_json"
"""The package of ComfyUI's own templates, where it is installed."""
MAX_BYTES = 64_000_000


class Import(GuardedCommand, Command):  # type: ignore[misc]
    doc_purpose = "write a machine.yaml for workflows: their custom nodes and models"
    doc_description = (
        "FILE is a workflow as the page saves it or in API format. Each line that is written says "
        "why it is there; what isn't known is named, and the exit status is 1. Which repository "
        "has which node is looked up in ComfyUI-Manager's lists, which are fetched from their "
        "authors; --catalogue names a folder, or another repository, with such lists."
    )
    doc_usage = "[--catalogue FOLDER|URL] FILE ..."
    cmd_options = (
        {
            "name": "catalogue", "long": "catalogue", "type": str, "default": CATALOGUE,
            "metavar": "FOLDER|URL", "help": "lists in the format of ComfyUI-Manager",
        },
    )  # fmt: skip

    def execute(self, opt_values: dict[str, Any], pos_args: list[str]) -> int:
        if not pos_args:
            raise InvalidCommand(f"name a workflow: {PROGRAM} import workflow.json")
        file = machine_file().absolute()
        try:
            if file.exists():
                raise Failure(f"{file} exists, and stays as it is; name another with -m FILE")
            workflows = {name: _read(Path(name)) for name in pos_args}
            found = _look_up(workflows, opt_values["catalogue"])
            contents = _contents(*found)
            said = write(file, contents.text(Hardware.here()))
        except Failure as failure:
            print(f"import: {failure}", file=sys.stderr)
            return 1
        except OSError as error:
            print(f"import: {error.strerror}: {error.filename or file}", file=sys.stderr)
            return 1
        tell(file, said, _summary(contents, found[0]))
        return 1 if contents.missing else 0


def _read(file: Path) -> list[NodeUse]:
    """Raises Failure and OSError."""
    if file.stat().st_size > MAX_BYTES:
        raise Failure(f"{file} is larger than 64 MB, so it is no workflow")
    try:
        return node_uses.uses(json.loads(file.read_bytes()))
    except (ValueError, RecursionError):
        raise Failure(f"{file} is no workflow of ComfyUI, neither as the page saves it nor in API "
                      "format") from None  # fmt: skip


def _look_up(
    workflows: Mapping[str, Sequence[NodeUse]], catalogue: str
) -> tuple[Gathered, NodeCatalogue]:
    """Raises Failure and OSError."""
    with TemporaryDirectory() as folder:
        core = core_classes.core_classes(_checkout(COMFYUI.url, COMFYUI.ref, Path(folder, "core")))
        lists = Path(catalogue)
        if not lists.is_dir():
            lists = _checkout(catalogue, None, Path(folder, "lists"))
        try:
            nodes = node_catalogue.read(lists)
            models = model_catalogue.collected(_published(lists))
        except FileNotFoundError as error:
            lacking = Path(error.filename).name
            message = f"{catalogue} has no {lacking}: --catalogue is for ComfyUI-Manager's lists"
            raise Failure(message) from None
        except ValueError as error:
            raise Failure(str(error)) from None
    return gathered.gathered(workflows, core, nodes, models), nodes


def _published(lists: Path) -> Iterator[model_catalogue.PublishedModel]:
    about = importlib.util.find_spec(TEMPLATES)
    places = about.submodule_search_locations or () if about else ()
    own = (model_catalogue.of_templates(Path(place, "templates")) for place in places)
    return chain(*own, model_catalogue.read(lists / model_catalogue.MODELS))


def _checkout(url: str, ref: str | None, target: Path) -> Path:
    """Raises Failure."""
    print(f"fetching {url} {ref or ''}".rstrip(), file=sys.stderr, flush=True)
    remotes.checkout(url, remotes.resolve(url, ref), target)
    return target


def _contents(found: Gathered, nodes: NodeCatalogue) -> Contents:
    missing = [
        f"{name}: node {each.use.id}, class {each.use.kind}: {_candidates(each.candidates)}"
        for name, each in found.unknown
    ]
    lines: list[Node] = []
    for package in found.packages.values():
        try:
            lines.append(_node(package, nodes.url(package.repository)))
        except Failure as failure:
            kinds = gathered.listed([each.use.kind for _, each in package.found])
            missing.append(f"{kinds}: {failure}")
    for name, model in found.unknown_models():
        where = f"{name}: node {model.use.id} ({model.use.kind})"
        missing.append(f"{where} loads {model.name}: no list says where to get it")
    return Contents(
        nodes=lines, missing=[shown(each, 300) for each in missing], files=[*_files(found)]
    )


def _candidates(candidates: Sequence[str]) -> str:
    if not candidates:
        return "no repository in the catalogue has it"
    return f"one of {gathered.listed(candidates)}"


def _node(package: Package, url: str) -> Node:
    """The package at the commit that workflows name, else at its newest. Raises Failure."""
    notes = [*package.notes()]
    for version in package.versions:
        if remotes.COMMIT.fullmatch(version) and (ref := _tried(url, version)):
            return Node(url=url, ref=ref, notes=[shown(each, 200) for each in notes])
    if package.versions:
        notes.append(f"made with {gathered.listed(package.versions)}; this is the newest commit")
    return Node(url=url, ref=remotes.resolve(url, None), notes=[shown(each, 200) for each in notes])


def _tried(url: str, commit: str) -> str:
    try:
        return remotes.resolve(url, commit)
    except Failure:
        return ""


def _files(found: Gathered) -> Iterator[ModelFile]:
    for name, model in found.known_models():
        assert model.published
        assert model.target
        why = {
            "workflow": "the workflow says where it is published",
            "templates": "in ComfyUI's own templates",
            "list": "in ComfyUI-Manager's list",
        }[model.published.evidence]
        yield ModelFile(
            model.target, model.published.url, sha256=model.published.sha256,
            notes=[shown(f"{why}; for {name}", 200)],
        )  # fmt: skip


def _summary(contents: Contents, found: Gathered) -> Iterator[str]:
    guesses = sum(each.is_guess for each in found.packages.values())
    guessed = f", {guesses} of them a guess" if guesses else ""
    yield f"  {_counted(len(contents.nodes), 'custom node')}{guessed}"
    yield f"  {_counted(len(contents.files), 'model')} to download"
    if contents.missing:
        yield "not known:"
        yield from (f"  {each}" for each in contents.missing)


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
