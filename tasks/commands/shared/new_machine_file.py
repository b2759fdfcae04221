"""A machine.yaml that wasn't there before: what goes into it, and its text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...engine.configuration import machine_file
from ...host.comfyui.installations import Checkout
from ...host.system import files, gpu
from ...host.system.failure import Failure
from ...host.system.gpu import Gpu
from ...host.system.program_files import PROGRAM
from ...host.system.units import gib
from ...imports.entries import Line, ModelFile, Node, Root, Workflow
from ...spec.lock_format import Lock
from ...spec.problems import shown

COMFYUI = Checkout("ComfyUI", "https://github.com/Comfy-Org/ComfyUI.git", "v0.33.0")
"""Where none is found: as in this project's own machine.yaml."""
SCHEMA = "machine.schema.json"
WIDEST = 500
"""Characters of a comment."""


@dataclass(frozen=True)
class Hardware:
    """The GPUs; without any, `trouble` says why."""

    gpus: Sequence[Gpu]
    driver: str
    trouble: str = ""

    @classmethod
    def here(cls) -> Hardware:
        try:
            return cls(gpu.inventory(), gpu.driver_version())
        except Failure as failure:
            return cls((), "", str(failure))

    @property
    def cpu_only(self) -> bool:
        """A driver that doesn't answer is to be mended: it is no reason to use the CPU."""
        return not self.gpus and not gpu.driver_present()

    def lines(self) -> list[str]:
        """For the comment in the file."""
        if self.gpus:
            cards = [f"{each}, {gib(each.total)}" for each in self.gpus]
            return [f"Found with driver {self.driver}:", *cards]
        return ["No NVIDIA GPU is here." if self.cpu_only else f"No GPU answers: {self.trouble}"]


@dataclass(frozen=True)
class Contents:
    """What goes into the file."""

    comfyui: Checkout = COMFYUI
    found: str = ""
    """The folder that it was found in."""
    comfyui_path: str = ""
    """Its own folder, instead of a repository."""
    comfyui_notes: Sequence[str] = ()
    torch: str = ""
    """Its build; empty: it is chosen by the driver."""
    torch_notes: Sequence[str] = ()
    packages: Sequence[Line] = ()
    """Requirements beyond those of ComfyUI and the nodes."""
    nodes: Sequence[Node] = ()
    missing: Sequence[str] = ()
    """What isn't known, a line each."""
    roots: Sequence[Root] = ()
    """Folders with models."""
    files: Sequence[ModelFile] = ()
    workflows: Sequence[Workflow] = ()
    gpus: Sequence[int] = ()
    """Empty: all."""
    cpu_only: bool = False
    """Whether it runs on the CPU although GPUs are here."""
    listen: str = "127.0.0.1"
    port: int = 8188
    args: Sequence[str] = ()
    """Of ComfyUI's main.py."""
    args_notes: Sequence[str] = ()
    user: str = ""
    """The folder with which the user folder of an instance starts."""
    left_out: Sequence[str] = ()
    """What there is besides, and why it isn't taken over, a line each."""

    def text(self, hardware: Hardware) -> str:
        from ...host.system import templates

        return templates.render(
            "machine.yaml.j2",
            program=PROGRAM,
            schema=SCHEMA,
            contents=self,
            hardware=hardware.lines(),
            cpu_only=hardware.cpu_only or self.cpu_only,
            filters={"comment": _one_line},
        )


def _one_line(text: str) -> str:
    """Text from elsewhere, so that it stays in its comment, or line of the terminal."""
    return shown(text, WIDEST)


def write(file: Path, text: str) -> str:
    """Write a file that doesn't exist, or nothing, and the schema that it names; return what to
    say of that. Raises OSError."""
    with file.open("x", encoding="utf-8") as stream:
        try:
            stream.write(text)
            stream.flush()
        except OSError:
            file.unlink()
            raise
    return _write_schema(file.parent)


def write_lock(file: Path, lock: Lock) -> None:
    """Write the machine.lock beside a machine file. Raises OSError."""
    files.write_text(file.with_suffix(".lock"), lock.text(), mode=0o644)


def tell(file: Path, said: str, lines: Iterable[str]) -> None:
    """Print what `write` did, what the file is made from, and what to do next."""
    print(f"{file.name} is written{said}")
    for line in lines:
        print(_one_line(line))
    named = "" if file.name == "machine.yaml" else f" machine={machine_file()}"
    print(f"next: {PROGRAM} plan{named} says what will be done, {PROGRAM}{named} does it")


def _write_schema(folder: Path) -> str:
    from ...spec.json_schema import schema

    if (folder / SCHEMA).exists():
        return ""
    try:
        files.write_text(folder / SCHEMA, json.dumps(schema(), indent=2) + "\n")
    except OSError as error:
        return f"; {SCHEMA}, for editors, is not: {error.strerror}"
    return f", and {SCHEMA} for editors"
