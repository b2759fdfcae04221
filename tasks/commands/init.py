"""doit init: write a commented machine.yaml for what is found here; ask nothing."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from doit.cmd_base import Command
from doit.exceptions import InvalidCommand

from ..engine.configuration import machine_file
from ..engine.outputs import GuardedCommand
from ..host.comfyui import installations
from ..host.comfyui.installations import Checkout, Installation
from ..host.system import files, gpu
from ..host.system.failure import Failure
from ..host.system.gpu import Gpu
from ..host.system.program_files import PROGRAM, SIMULATOR
from ..host.system.units import gib
from ..spec.problems import shown
from ..spec.urls import repository_name

COMFYUI = Checkout("ComfyUI", "https://github.com/Comfy-Org/ComfyUI.git", "v0.33.0", edited=False)
"""Where none is found: as in this project's own machine.yaml."""
SCHEMA = "machine.schema.json"


@dataclass(frozen=True)
class Hardware:
    """The GPUs; without any, `trouble` says why."""

    gpus: Sequence[Gpu]
    driver: str
    trouble: str = ""

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


class Init(GuardedCommand, Command):  # type: ignore[misc]
    doc_purpose = "write a commented machine.yaml for what is found here"
    doc_description = (
        "It looks at the GPUs and the driver, and for an existing ComfyUI and for models in this "
        "folder, beside it and in the home folder. It asks nothing, and never overwrites a file."
    )
    cmd_options = (
        {
            "name": "demo", "long": "demo", "type": bool, "default": False,
            "help": "write one of the simulator: two instances, no GPU, no download",
        },
    )  # fmt: skip

    def execute(self, opt_values: dict[str, Any], pos_args: list[str]) -> int:
        if pos_args:
            raise InvalidCommand(f"init takes no names: {' '.join(pos_args)}")
        file = machine_file().absolute()
        if opt_values["demo"]:
            text, findings = _demo(), [f"two instances of the simulator in {SIMULATOR}"]
        else:
            text, findings = _found(file)
        try:
            _write_new(file, text)
        except FileExistsError:
            print(f"init: {file} exists, and stays as it is", file=sys.stderr)
            return 1
        except OSError as error:
            print(f"init: {error.strerror}: {file}", file=sys.stderr)
            return 1
        schema = _write_schema(file.parent)
        print(f"{file.name} is written{schema}")
        for line in findings:
            print(f"  {line}")
        named = "" if file.name == "machine.yaml" else f" machine={machine_file()}"
        print(f"next: {PROGRAM} plan{named} says what will be done, {PROGRAM}{named} does it")
        return 0


def _demo() -> str:
    from ..host.system import templates

    return templates.render("demo.yaml.j2", program=PROGRAM, schema=SCHEMA, comfyui=str(SIMULATOR))


def _found(file: Path) -> tuple[str, list[str]]:
    """The text for what is here, and what it is made from."""
    found = installations.find(file.parent, Path.home())
    models = installations.models(file.parent, found)
    hardware = _hardware()
    return _text(found, models, hardware), _findings(found, models, hardware)


def _hardware() -> Hardware:
    try:
        return Hardware(gpu.inventory(), gpu.driver_version())
    except Failure as failure:
        return Hardware((), "", str(failure))


def _write_new(file: Path, text: str) -> None:
    """Write a file that doesn't exist, or nothing. Raises OSError."""
    with file.open("x", encoding="utf-8") as stream:
        try:
            stream.write(text)
            stream.flush()
        except OSError:
            file.unlink()
            raise


def _write_schema(folder: Path) -> str:
    """Write the schema that the file names, if there is none; what to say of it."""
    from ..spec.json_schema import schema

    if (folder / SCHEMA).exists():
        return ""
    try:
        files.write_text(folder / SCHEMA, json.dumps(schema(), indent=2) + "\n")
    except OSError as error:
        return f"; {SCHEMA}, for editors, is not: {error.strerror}"
    return f", and {SCHEMA} for editors"


def _text(found: Installation | None, models: Path | None, hardware: Hardware) -> str:
    from ..host.system import templates

    comfyui = found and found.comfyui
    return templates.render(
        "machine.yaml.j2",
        program=PROGRAM,
        schema=SCHEMA,
        found=found and {
            "folder": shown(str(found.folder if comfyui else found.folder / "custom_nodes"), 500),
            "nodes": [_node(each) for each in found.nodes],
        },
        comfyui=comfyui or COMFYUI,
        models=models and str(models),
        hardware=hardware.lines(),
        cpu_only=hardware.cpu_only,
    )  # fmt: skip


def _node(node: Checkout | Path) -> dict[str, Any]:
    if isinstance(node, Path):
        return {"path": str(node)}
    renamed = node.name != repository_name(node.url)
    return {"url": node.url, "ref": node.ref, "name": node.name, "edited": node.edited,
            "renamed": renamed}  # fmt: skip


def _findings(found: Installation | None, models: Path | None, hardware: Hardware) -> list[str]:
    """What the file is made from, in lines."""
    lines = hardware.lines()
    if hardware.gpus:
        lines = [f"{lines[0]} {'; '.join(lines[1:])}"]
    if found and found.comfyui:
        lines.append(f"ComfyUI {found.comfyui.ref[:12]} in {found.folder}")
    elif found:
        lines.append(f"the ComfyUI in {found.folder} is no clone: {COMFYUI.ref} is written instead")
    if found:
        plural = "" if len(found.nodes) == 1 else "s"
        lines.append(f"{len(found.nodes)} custom node{plural} in {found.folder / 'custom_nodes'}")
    if models:
        lines.append(f"models in {models}")
    return lines
