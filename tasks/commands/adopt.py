"""doit adopt: a machine.yaml and machine.lock for an existing ComfyUI, in which nothing changes."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from doit.cmd_base import Command
from doit.exceptions import InvalidCommand

from ..adoption import findings, model_inventory
from ..engine.configuration import machine_file, prepare_process
from ..engine.outputs import GuardedCommand
from ..engine.progress_board import Board
from ..host.system.failure import Failure
from ..host.system.program_files import PROGRAM
from .shared import adopted
from .shared.accepted_contents import accepted
from .shared.command import option
from .shared.new_machine_file import COMFYUI, Hardware, tell, write, write_lock


class Adopt(GuardedCommand, Command):  # type: ignore[misc]
    doc_purpose = "write a machine.yaml for an existing ComfyUI, which stays as it is"
    doc_description = (
        "FOLDER is a ComfyUI, or a folder with one in it. Its commit, custom nodes, models, "
        "settings and the arguments of its start script are written with what says so; the "
        "versions of its Python packages go into machine.lock, and the first build prefers them. "
        "Models stay where they are. What isn't taken over is named. No file is overwritten."
    )
    doc_usage = "[--python PATH] [--no-hash] FOLDER"
    cmd_options = (
        option("python", "its Python, or the folder of its environment", default=""),
        option("no-hash", "don't read the models to know their sha256"),
    )

    def execute(self, opt_values: dict[str, Any], pos_args: list[str]) -> int:
        if len(pos_args) != 1:
            raise InvalidCommand(f"name the folder of one ComfyUI: {PROGRAM} adopt ~/ComfyUI")
        prepare_process()
        file = machine_file().absolute()
        try:
            lines = _adopt(_path(pos_args[0]), file, opt_values)
        except Failure as failure:
            print(f"adopt: {failure}", file=sys.stderr)
            return 1
        except OSError as error:
            print(f"adopt: {error.strerror}: {error.filename or file}", file=sys.stderr)
            return 1
        tell(file, *lines)
        return 0


def _adopt(folder: Path, file: Path, options: dict[str, Any]) -> tuple[str, list[str]]:
    """Write both files; return what to say. Raises Failure and OSError."""
    lock_file = file.with_suffix(".lock")
    for each in (file, lock_file):
        if each.exists():
            raise Failure(f"{each} exists, and stays as it is; name another with -m FILE")
    if file.resolve().is_relative_to(folder.resolve()):
        raise Failure(
            f"{file} would lie in the installation, which stays as it is: call it in another "
            "folder, or name a file with -m FILE"
        )
    python = _path(options["python"]) if options["python"] else None
    found = findings.read(folder, python, Path.home(), COMFYUI.url)
    models = found.inventory.models.values()
    digests = {} if options["no-hash"] else model_inventory.hashes(models, Board())
    hardware = Hardware.here()
    contents = accepted(adopted.contents(found, digests), file, hardware)
    said = write(file, contents.text(hardware))
    try:
        write_lock(file, adopted.lock(found))
    except OSError:
        file.unlink()
        raise
    lines = [f"  {line}" for line in adopted.summary(found, contents)]
    return f", with {lock_file.name}{said}", lines


def _path(text: str) -> Path:
    """A path of the command line, without .. in it."""
    return Path(os.path.abspath(os.path.expanduser(text)))  # noqa: PTH100, PTH111  links stay
