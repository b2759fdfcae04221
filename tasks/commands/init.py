"""doit init: write a commented machine.yaml for what is found here; ask nothing."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from doit.cmd_base import Command
from doit.exceptions import InvalidCommand

from ..engine.configuration import machine_file
from ..engine.outputs import GuardedCommand
from ..host.comfyui import installations
from ..host.comfyui.installations import Checkout, Installation
from ..host.system.program_files import PROGRAM, SIMULATOR
from ..imports.entries import Node, Root
from ..spec.problems import shown
from ..spec.urls import repository_name
from .shared.new_machine_file import COMFYUI, SCHEMA, Contents, Hardware, tell, write


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
            said = write(file, text)
        except FileExistsError:
            print(f"init: {file} exists, and stays as it is", file=sys.stderr)
            return 1
        except OSError as error:
            print(f"init: {error.strerror}: {file}", file=sys.stderr)
            return 1
        tell(file, said, [f"  {line}" for line in findings])
        return 0


def _demo() -> str:
    from ..host.system import templates

    return templates.render("demo.yaml.j2", program=PROGRAM, schema=SCHEMA, comfyui=str(SIMULATOR))


def _found(file: Path) -> tuple[str, list[str]]:
    """The text for what is here, and what it is made from."""
    found = installations.find(file.parent, Path.home())
    models = installations.models(file.parent, found)
    hardware = Hardware.here()
    text = _contents(found, models).text(hardware)
    return text, _findings(found, models, hardware)


def _contents(found: Installation | None, models: Path | None) -> Contents:
    comfyui = found and found.comfyui
    return Contents(
        comfyui=comfyui or COMFYUI,
        found=shown(str(found.folder if comfyui else found.folder / "custom_nodes"), 500)
        if found
        else "",
        nodes=[_node(each, found.folder) for each in found.nodes] if found else [],
        roots=[Root(str(models))] if models else [],
    )


def _node(node: Checkout | Path, folder: Path) -> Node:
    if isinstance(node, Path):
        return Node(
            path=str(node), notes=["Without a repository: linked, so it has to stay there."]
        )
    edited = f"Edited in {shown(str(folder), 500)}: what isn't in its repository is missing here."
    return Node(
        url=node.url,
        ref=node.ref,
        name=node.name if node.name != repository_name(node.url) else "",
        notes=[edited] if node.edits else [],
    )


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
