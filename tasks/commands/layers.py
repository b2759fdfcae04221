"""doit layers: split machine.yaml into parts that change only when their image layer must.

Docker reuses a layer while its input files are the same. So each layer gets its own machine.yaml
and machine.lock with only what it is made of: packages are installed again when a package
changes, but not when a custom node does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..engine.run import Run
from ..environment import target
from ..host.system import files
from ..host.system.failure import Failure
from ..spec import Lock
from ..spec.loader import read_document
from ..spec.model import COMFYUI_REPO
from ..spec.paths import absolute
from .shared.command import Call, MachineCommand, option

Data = dict[Any, Any]
PREFIX = "comfy-machine"
"""The prefix of label names."""


class Layers(MachineCommand):
    doc_purpose = "write the inputs of each image layer, for the Dockerfile"
    doc_usage = "FOLDER"
    takes_names = True
    cmd_options = (option("labels", "only print the options that label an image with its commits"),)

    def perform(self, call: Call) -> int:
        run = call.run
        if call.options["labels"]:
            print(" ".join(f"--label {PREFIX}.{name}={commit}" for name, commit in _commits(run)))
            return 0
        if len(call.names) != 1:
            raise Failure("name the folder to write to")
        folder = Path(call.names[0])
        data = read_document(run.machine.file, run.machine.file.name).data
        for name, (part, lock) in {
            "environment": _environment(run, data),
            "code": _code(run, data),
            "models": _models(run, data),
        }.items():
            _write(run, folder / name, part, lock)
        return 0


def _commits(run: Run) -> list[tuple[str, str]]:
    """The commits in machine.lock, with names that are valid in labels."""
    pins = {f"custom-node.{name}": pin for name, pin in run.machine.lock.custom_nodes.items()}
    pinned = {"comfyui": run.machine.lock.comfyui, **pins}
    return [(quote(name), pin.commit) for name, pin in pinned.items() if pin]


def _environment(run: Run, data: Data) -> tuple[Data, Lock]:
    """The environment's part: ComfyUI, and the nodes whose scripts run in it."""
    names = set(target.script_versions(run))
    nodes = [
        {key: value for key, value in node.items() if key != "env"}
        for node, known in zip(
            data.get("custom_nodes") or (), run.machine.custom_nodes, strict=False
        )
        if known.name in names
    ]
    part = (
        _some(data, "workspace", "comfyui", "python")
        | _registry(data)
        | {
            "custom_nodes": nodes,
            "instances": _some(data.get("instances") or {}, "cpu_only"),
        }
    )
    return part, _for_nodes(run.machine.lock, names)


def _registry(data: Data) -> Data:
    """Where nodes with an id come from, if that is said."""
    said = _some(data.get("registry") or {}, "url")
    return {"registry": said} if said else {}


def _for_nodes(lock: Lock, names: set[str]) -> Lock:
    """All packages, recorded as the requirements of these nodes."""
    pins = {name: pin for name, pin in lock.custom_nodes.items() if name in names}
    if (python := lock.python) is not None:
        asked = python.asked.requirements
        lines = {name: lines for name, lines in asked.custom_nodes.items() if name in names}
        fewer = asked.model_copy(update={"custom_nodes": lines})
        recorded = python.asked.model_copy(update={"requirements": fewer})
        left_out = {name: why for name, why in python.left_out.items() if name in names}
        python = python.model_copy(update={"asked": recorded, "left_out": left_out})
    return Lock(comfyui=lock.comfyui, custom_nodes=pins, python=python)


def _code(run: Run, data: Data) -> tuple[Data, Lock]:
    """The code's part: ComfyUI, every node, and the settings that their import depends on."""
    part = (
        _some(data, "workspace", "comfyui", "python", "custom_nodes")
        | _registry(data)
        | {
            "models": _some(data.get("models") or {}, "folder"),
            "instances": _some(data.get("instances") or {}, "cpu_only", "env"),
        }
    )
    return part, run.machine.lock.model_copy(update={"models": {}})


def _models(run: Run, data: Data) -> tuple[Data, Lock]:
    """The models' part: the downloads, and any ComfyUI, since a machine file needs one."""
    models = _some(data.get("models") or {}, "folder", "store", "tokens", "files")
    part = _some(data, "workspace") | {"comfyui": {"repo": COMFYUI_REPO}, "models": models}
    return part, Lock(models=run.machine.lock.models)


def _some(data: Mapping[Any, Any], *keys: str) -> Data:
    return {key: data[key] for key in keys if key in data}


def _write(run: Run, folder: Path, part: Data, lock: Lock) -> None:
    """Write the two files, and copy the local folders that the first one names."""
    import yaml

    files.write_text(folder / "machine.yaml", yaml.safe_dump(part, sort_keys=False))
    if run.machine.lock_file.exists():
        files.write_text(folder / "machine.lock", lock.text())
    top = run.machine.file.parent.resolve()
    for place in _local_folders(run, part):
        here = place.resolve()
        if not here.is_relative_to(top):
            raise Failure(f"{place} is outside of the machine's folder: move it there")
        if not here.exists():
            raise Failure(f"{place} is missing: correct its path in machine.yaml")
        target = folder / here.relative_to(top)
        files.remove(target)
        files.copy_tree(here, target)


def _local_folders(run: Run, part: Data) -> Iterator[Path]:
    for entry in (part["comfyui"], *(part.get("custom_nodes") or ())):
        if entry.get("path"):
            yield absolute(run.machine.file.parent, entry["path"], run.machine.env)
    if "python" in part:
        yield from (path for path in map(Path, run.machine.python.find_links) if path.is_absolute())
