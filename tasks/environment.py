"""The Python environment: one uv resolve and install for ComfyUI and every custom node."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from tasks import nodes, requirements
from tasks.engine.step import Task, step
from tasks.host import files, gpu, made, process, uv
from tasks.host.failure import Failure
from tasks.spec import Machine
from tasks.spec.layout import Layout

#: `requests` is imported by ComfyUI 0.3.64's app/frontend_management.py, which does not ask
#: for it; `pip` is what custom nodes' install scripts call.
ALWAYS = ("pip", "requests")
TORCH_FAMILY = ("torch", "torchvision", "torchaudio")
INSTALL_SCRIPT = "install.py"


def tasks(machine: Machine) -> Iterator[Task]:
    layout = machine.layout
    yield step(
        "environment",
        "The Python environment, one install for ComfyUI and all custom nodes",
        check=partial(_missing, machine),
        action=partial(_make, machine),
        log=layout.log("environment"),
        after=["source", "nodes"],
        garbage=partial(_garbage, layout),
    )


def folder_of(machine: Machine) -> Path:
    """The environment that the last `environment` step made or chose. Raises Failure if none."""
    layout = machine.layout
    return made.pointed(_pointer(layout), layout.environments)


def scripts(machine: Machine) -> dict[str, str]:
    """The nodes that have something to run, each with the version of what it runs."""
    found = {}
    for node in nodes.present(machine):
        script = nodes.folder_of(machine, node) / INSTALL_SCRIPT
        if node.script or script.is_file():
            commit = nodes.source_of(machine, node).read().get("commit")
            found[node.name] = str(commit or files.file_digest(script)) + (node.script or "")
    return found


def record(folder: Path, **changes: Any) -> None:
    """Write down what is in the environment now, which from here on is what belongs there."""
    site = uv.site_packages(folder)
    names = sorted(path.name for path in site.iterdir() if path.name != files.BYTECODE)
    receipt = made.read(folder) | changes
    receipt["installed"] = [name for name in names if name.endswith(".dist-info")]
    receipt["top"] = [name for name in names if not name.endswith(".dist-info")]
    made.finish(folder, receipt)


def damage(folder: Path, receipt: dict[str, Any]) -> str | None:
    """What differs from the record by hand; what nobody recorded beside packages is no damage."""
    for name in ("bin/python", "pyvenv.cfg"):
        if not (folder / name).exists():
            return f"{name} is missing from {folder.name}"
    try:
        there = {path.name for path in uv.site_packages(folder).iterdir()}
    except OSError:
        return f"{folder.name} has no site-packages"
    installed, top = set(receipt.get("installed", ())), set(receipt.get("top", ()))
    if gone := sorted((installed | top) - there):
        return f"{gone[0]} is missing from {folder.name}"
    added = sorted(name for name in there - installed if name.endswith(".dist-info"))
    if added and not receipt.get("pending"):
        return f"{added[0]} was added to {folder.name} by hand"
    return None


def of_generations(generations: Iterable[Path]) -> frozenset[str]:
    """The environments that these generations link to."""
    return frozenset((folder / "environment").resolve().name for folder in generations)


def _garbage(layout: Layout) -> list[Path]:
    keep = of_generations(made.list_folders(layout.generations))
    return [path for path in made.list_folders(layout.environments) if path.name not in keep]


def _pointer(layout: Layout) -> Path:
    return layout.receipts / "environment.json"


def _missing(machine: Machine) -> str | None:
    layout = machine.layout
    folder = folder_of(machine)
    if files.read_receipt(_pointer(layout)).get("digest") != _digest(machine):
        return "its requirements changed"
    beside = made.read(folder)
    return damage(folder, beside) if beside else f"{folder.name} isn't whole"


def _digest(machine: Machine) -> str:
    python = machine.python
    return files.digest(
        {
            "interpreter": sys.version,
            "requirements": [
                requirements.content(machine, each) for each in requirements.of(machine)
            ],
            "always": ALWAYS,
            "torch": _torch(machine),
            "overrides": python.overrides,
            "find_links": python.find_links,
            "extra_index_urls": python.extra_index_urls,
            "scripts": scripts(machine),
        }
    )


def _torch(machine: Machine) -> str:
    wanted = machine.python.torch
    return "cpu" if wanted == "auto" and machine.instances.cpu_only else wanted


def _make(machine: Machine, log: Path) -> None:
    layout = machine.layout
    digest = _digest(machine)
    in_use = of_generations(made.list_folders(layout.generations))
    folder, whole = made.choose(layout.environments, digest, damage, in_use)
    if not whole:
        if not _grow(machine, folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            uv.make_environment(folder, sys.executable, log)
        try:
            _install(machine, folder, log)
        except requirements.Unsatisfied as unsatisfied:
            optional = [node for node in unsatisfied.blamed if node and node.optional]
            if not optional:
                raise
            for node in optional:
                nodes.leave_out(machine, node, str(unsatisfied))
            return _make(machine, log)
        if scripts(machine):
            files.unshare(uv.site_packages(folder), ".py")
        record(folder, digest=digest, pending=sorted(scripts(machine)))
    made.point(_pointer(layout), folder, digest)
    return None


def _grow(machine: Machine, folder: Path) -> bool:
    """Start from hard links to the previous environment's files; False where that can't be.

    uv and pip replace files and never write into them, so the previous one stays intact.
    """
    try:
        previous = folder_of(machine)
    except Failure:
        return False
    receipt = made.read(previous)
    same_python = (previous / "bin" / "python").resolve() == Path(sys.executable).resolve()
    if not receipt or not same_python or made.damaged(previous, receipt, damage):
        return False
    try:
        files.copy_tree(previous, folder, hard_links=True)
    except subprocess.CalledProcessError:
        files.remove(folder)
        return False
    return True


def _install(machine: Machine, folder: Path, log: Path) -> None:
    asked = requirements.of(machine)
    arguments: list[str | Path] = [*ALWAYS]
    for each in asked:
        requirements.refuse_local(each, log)
        arguments += ["--requirements", each.file]
    arguments += _torch_arguments(machine)
    scratch = machine.layout.scratch
    if machine.python.overrides:
        arguments += ["--overrides", _listed(scratch / "overrides.txt", machine.python.overrides)]
    if machine.python.torch == "none":
        arguments += ["--excludes", _listed(scratch / "excludes.txt", TORCH_FAMILY)]
    for place in machine.python.find_links:
        arguments += ["--find-links", place]
    for index in machine.python.extra_index_urls:
        arguments += ["--extra-index-url", index]
    try:
        uv.install(folder, [*arguments, *_matching_torch(folder, arguments, log)], log)
    except process.CommandFailed as failed:
        raise requirements.explain(failed, asked, log) from failed


def _listed(file: Path, lines: Iterable[str]) -> Path:
    files.write_text(file, "\n".join(lines) + "\n")
    return file


def _matching_torch(folder: Path, arguments: list[str | Path], log: Path) -> list[str]:
    """The torch that fits torchaudio, when uv would choose another.

    torchaudio works with the torch of its own minor version alone, and asks for none: PyPI's
    newest, torchaudio 2.11 beside torch 2.15, does not import.
    """
    said = uv.install(folder, [*arguments, "--dry-run"], log)
    chosen = {
        name: path.name.removeprefix(f"{name}-")
        for name in ("torch", "torchaudio")
        for path in uv.site_packages(folder).glob(f"{name}-*.dist-info")
    } | dict(re.findall(r"^ \+ (torch|torchaudio)==(\S+)$", said, re.M))
    minor = {name: ".".join(version.split(".")[:2]) for name, version in chosen.items()}
    if len(minor) < 2 or minor["torch"] == minor["torchaudio"]:
        return []
    return [f"torch=={minor['torchaudio']}.*"]


def _torch_arguments(machine: Machine) -> list[str]:
    choice = _torch(machine)
    if choice == "auto":
        # Without a driver uv's own `auto` means the CPU build, and an image would keep it.
        choice = "auto" if gpu.driver_present() else "pypi"
    return [] if choice in ("pypi", "none") else ["--torch-backend", choice]
