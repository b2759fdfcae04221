"""doit export: the machine as other tools keep one."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from doit.exceptions import InvalidCommand

from ..engine.run import Run
from ..host.system.failure import Failure
from ..host.system.program_files import PROGRAM
from ..spec.problems import did_you_mean, shown
from .shared import built_machine, export_formats
from .shared.command import Call, MachineCommand


class Export(MachineCommand):
    doc_purpose = "the machine as other tools read it, so that you can leave"
    doc_description = (
        "FORMAT is snapshot, ComfyUI-Manager's, or comfy-lock, comfy-cli's comfy-lock.yaml. "
        "Written is what is built: commits, packages and, in comfy-lock, models. FILE must not "
        "exist; without one it is printed. What nobody else could get, such as a local folder, is "
        "named, and the exit status is 1."
    )
    doc_usage = "FORMAT [FILE]"
    takes_names = True

    @classmethod
    def words(cls, run: Run) -> Iterable[tuple[str, str]]:
        return ((each.name, each.says) for each in export_formats.FORMATS.values())

    def perform(self, call: Call) -> int:
        formats = export_formats.FORMATS
        if not 1 <= len(call.names) <= 2:
            raise InvalidCommand(f"{PROGRAM} export FORMAT [FILE]; formats: {', '.join(formats)}")
        name, *rest = call.names
        if name not in formats:
            hint = did_you_mean(name, formats).rstrip("?")
            raise InvalidCommand(f"no format {shown(name)}{hint}; known: {', '.join(formats)}")
        built = built_machine.read(call.run)
        text = formats[name].text(built)
        if rest:
            _write(Path(rest[0]), text)
        else:
            print(text, end="")
        lost = [*built.lost, *(built.lost_models if formats[name].has_models else ())]
        for line in lost:
            print(f"not exported: {line}", file=sys.stderr)
        print(f"{name} has no {formats[name].lacks}: machine.yaml keeps them", file=sys.stderr)
        return 1 if lost else 0


def _write(file: Path, text: str) -> None:
    """Raises Failure and OSError."""
    try:
        with file.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError:
        raise Failure(f"{file} exists, and stays as it is; name another file") from None
    except OSError as error:
        raise Failure(f"{file} can't be written: {error.strerror}") from None
    print(f"{file} is written")
