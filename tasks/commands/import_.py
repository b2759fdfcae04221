"""doit import: a machine.yaml for what other tools' files and workflows ask for."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from doit.cmd_base import Command
from doit.exceptions import InvalidCommand

from ..adoption import start_arguments
from ..engine.configuration import machine_file
from ..engine.outputs import GuardedCommand
from ..host.comfyui import installations
from ..host.comfyui.installations import Checkout
from ..host.repositories import remotes
from ..host.system.failure import Failure
from ..host.system.program_files import PROGRAM
from ..host.system.redaction import redact
from ..imports import assembly, disk_models, formats, kept_workflows, lookup, wanted
from ..imports.assembly import Assembled
from ..imports.entries import Workflow
from ..imports.lookup import CATALOGUE, Catalogue, Lookup
from ..imports.wanted import Wanted
from ..lock.torch_family import TORCH_FAMILY
from ..spec import Package, SpecError
from ..spec.lock_format import Lock, read_lock
from ..spec.model import REGISTRY
from ..spec.problems import shown
from .shared.accepted_contents import accepted
from .shared.new_machine_file import COMFYUI, Contents, Hardware, tell, write, write_lock


class Import(GuardedCommand, Command):  # type: ignore[misc]
    doc_purpose = "write a machine.yaml for workflows and other tools' files"
    doc_description = (
        f"FILE is {formats.KINDS}. Several are merged. Each line that is written says why it is "
        "there; what isn't known is named, and the exit status is 1. Which repository has which "
        "node is looked up in ComfyUI-Manager's lists, which are fetched from their authors."
    )
    doc_usage = "[--catalogue FOLDER|URL] [--newest] [--models FOLDER] FILE ..."
    cmd_options = (
        {
            "name": "catalogue", "long": "catalogue", "type": str, "default": CATALOGUE,
            "metavar": "FOLDER|URL", "help": "lists in the format of ComfyUI-Manager",
        },
        {
            "name": "newest", "long": "newest", "type": bool, "default": False,
            "help": "look in the newest lists, not in those that machine.lock pins",
        },
        {
            "name": "models", "long": "models", "type": list, "default": [], "metavar": "FOLDER",
            "help": "look for models in this folder, laid out like ComfyUI's models folder",
        },
    )  # fmt: skip

    def execute(self, opt_values: dict[str, Any], pos_args: list[str]) -> int:
        if not pos_args:
            raise InvalidCommand(f"name a file: {PROGRAM} import workflow.json")
        file = machine_file().absolute()
        try:
            if not file.parent.is_dir():
                raise Failure(f"{file.parent} is no folder: make it, or name another file with -m")
            if file.exists():
                raise Failure(f"{file} exists, and stays as it is; name another with -m FILE")
            lock = read_lock(file.with_suffix(".lock"), file.with_suffix(".lock").name)
            asked = wanted.together({name: formats.read(Path(name), name) for name in pos_args})
            comfyui = _comfyui(asked)
            answers = _answers(asked, comfyui, opt_values, lock)
            disk = disk_models.in_folders(_model_folders(asked, file, opt_values["models"]))
            found = assembly.assemble(asked, answers, disk, _say)
            workflows = [*kept_workflows.kept(asked.workflows, file.parent, found.incomplete)]
            new = {entry.path: each for entry, each in workflows if each is not None}
            hardware = Hardware.here()
            asked_for = _contents(asked, comfyui, found, [entry for entry, _ in workflows])
            with kept_workflows.written(new, file.parent):
                contents = accepted(asked_for, file, hardware)
                said = write(file, contents.text(hardware))
            _write_lock(file, lock, asked, answers)
        except (Failure, SpecError, ValueError) as failure:
            print(f"import: {failure}", file=sys.stderr)
            return 1
        except OSError as error:
            print(f"import: {error.strerror}: {error.filename or file}", file=sys.stderr)
            return 1
        tell(file, said, _summary(asked, contents, found))
        return 1 if contents.missing else 0


def _say(line: str) -> None:
    print(shown(line, 500), file=sys.stderr, flush=True)


def _comfyui(asked: Wanted) -> Checkout:
    """ComfyUI as a file asks for it. Raises Failure."""
    if asked.comfyui is None:
        return COMFYUI
    repository, ref = asked.comfyui
    if not ref and repository:
        ref = remotes.resolve(repository, None)
    return Checkout(COMFYUI.name, repository or COMFYUI.url, ref or COMFYUI.ref)


def _answers(asked: Wanted, comfyui: Checkout, options: dict[str, Any], lock: Lock) -> Lookup:
    """Raises Failure and OSError."""
    if not asked.workflows:
        return Lookup()
    pinned = None if options["newest"] else lock.catalogue
    registry = os.environ.get("COMFYUI_REGISTRY", REGISTRY)
    return lookup.look_up(
        asked.workflows,
        (comfyui.url, comfyui.ref),
        (COMFYUI.url, COMFYUI.ref),
        asked.nodes,
        Catalogue(registry, options["catalogue"], pinned),
        _say,
    )


def _model_folders(asked: Wanted, file: Path, named: list[str]) -> list[Path]:
    """Where models may be on this disk. Raises Failure."""
    for each in named:
        if not Path(each).is_dir():
            raise Failure(f"--models {each} is no folder")
    near = installations.models(file.parent, installations.find(file.parent, Path.home()))
    return [*(Path(each).absolute() for each in named), *([near] if near else [])]


def _contents(
    asked: Wanted, comfyui: Checkout, found: Assembled, workflows: list[Workflow]
) -> Contents:
    arguments = start_arguments.read(asked.args)
    left_out = [f"{argument}: {why}" for argument, why in arguments.left_out.items()]
    left_out += [f"{flag}: {folder}" for flag, folder in arguments.folders.items()]
    left_out += [f"{file}: give it to import as well" for file in arguments.model_paths]
    contents = Contents(
        comfyui=comfyui,
        comfyui_notes=asked.comfyui_notes,
        nodes=found.nodes,
        missing=[redact(each) for each in found.missing],
        packages=asked.packages,
        roots=asked.roots,
        files=found.models,
        workflows=workflows,
        gpus=arguments.gpus,
        cpu_only=arguments.cpu,
        args=arguments.args,
        left_out=[redact(each) for each in (*asked.remarks, *left_out)],
    )
    if arguments.listen:
        contents = replace(contents, listen=arguments.listen)
    return replace(contents, port=arguments.port) if arguments.port else contents


def _write_lock(file: Path, lock: Lock, asked: Wanted, answers: Lookup) -> None:
    """The lists' commit, and the versions that the first resolution prefers. Raises OSError."""
    from packaging.utils import canonicalize_name

    preferred = {
        canonicalize_name(name): Package(version=version)
        for name, version in asked.preferences.items()
    }
    others = {name: each for name, each in preferred.items() if name not in TORCH_FAMILY}
    changes = {"catalogue": answers.pin or lock.catalogue, "preferred": others or lock.preferred}
    if (changed := lock.model_copy(update=changes)) != lock:
        write_lock(file, changed)


def _summary(asked: Wanted, contents: Contents, found: Assembled) -> Iterator[str]:
    guessed = f", {found.guesses} of them a guess" if found.guesses else ""
    yield f"  {_counted(len(contents.nodes), 'custom node')}{guessed}"
    links = sum(bool(each.source) for each in contents.files)
    linked = f", {links} on this disk" if links else ""
    yield f"  {_counted(len(contents.files) - links, 'model')} to download{linked}"
    if contents.roots:
        yield f"  {_counted(len(contents.roots), 'folder')} of models"
    if asked.preferences:
        yield f"  {_counted(len(asked.preferences), 'package')} whose versions are preferred"
    if contents.workflows:
        yield f"  {_counted(len(contents.workflows), 'workflow')} to be proved by the build"
    if contents.left_out:
        yield "left out:"
        yield from (f"  {each}" for each in contents.left_out)
    if contents.missing:
        yield "not known, or missing:"
        yield from (f"  {each}" for each in contents.missing)


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
