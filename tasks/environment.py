"""The Python environment: what the lock lists, for ComfyUI and every custom node."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from tasks import nodes, packages, preinstalled, settling, torch_proof
from tasks.engine import journal
from tasks.engine.said import move
from tasks.engine.step import Task, step
from tasks.host import environments, files, hook, made, process, uv, uv_log
from tasks.host.environments import damage, fits
from tasks.host.failure import Failure
from tasks.host.uv_said import gist, refused
from tasks.question import REFUSED
from tasks.spec import Machine
from tasks.spec.layout import Layout
from tasks.torch_family import TORCH_FAMILY

INSTALL_SCRIPT = "install.py"


def tasks(machine: Machine) -> Iterator[Task]:
    layout = machine.layout
    yield step(
        "environment",
        "The Python environment, one install for ComfyUI and all custom nodes",
        check=partial(_missing, machine),
        action=partial(_make, machine),
        foresee=partial(_foresee, machine),
        log=layout.log("environment"),
        after=["lock"],
        garbage=partial(_garbage, layout),
    )


def folder_of(machine: Machine) -> Path:
    """The environment that the last `environment` step made or chose. Raises Failure if none."""
    layout = machine.layout
    return layout.seen(made.pointed(layout.seen(_pointer(layout)), layout.environments))


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


def hold(machine: Machine, folder: Path, who: str, log: Path) -> list[str]:
    """Put back what `who` changed of the locked packages; what to say of that.

    Raises Failure when it was torch, or another one hides what is preinstalled: a node that
    wants another one would want it again.
    """
    there = environments.installed(folder)
    moved = {
        name: package
        for name, package in packages.of(machine).packages.items()
        if not fits(package, there.get(name))
    }
    hiding = sorted(set(preinstalled.versions(machine)) & set(there))
    if moved:
        uv.put_back(folder, packages.listed(machine, moved), *packages.where(machine), log)
    if hiding:
        uv.uninstall(folder, hiding, log)
    said = [
        f"{who} changed {name} {package.shown} to {there.get(name, 'nothing')}, it was put back"
        for name, package in sorted(moved.items())
    ] + [
        f"{who} installed {name} {there[name]} over the preinstalled one, it was removed"
        for name in hiding
    ]
    if hiding or set(moved) & set(TORCH_FAMILY):
        raise Failure("; ".join(said) + ": the node needs another torch, or a fork", log)
    return said


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
    if files.read_receipt(layout.seen(_pointer(layout))).get("digest") != _digest(machine):
        return "its packages or its nodes' scripts changed"
    beside = made.read(folder)
    if not beside:
        return f"{folder.name} isn't whole"
    return damage(folder, beside) or torch_proof.due(machine, beside)


def _digest(machine: Machine) -> str:
    python = packages.of(machine)
    return files.digest(
        {
            "interpreter": sys.version,
            "packages": {name: p.requirement(name) for name, p in python.packages.items()},
            "preinstalled": preinstalled.versions(machine),
            "scripts": scripts(machine),
            "hook": hook.LINE,
        }
    )


def _choose(machine: Machine) -> tuple[str, Path, bool]:
    """The digest, its folder, and whether that is there and whole."""
    layout = machine.layout
    digest = _digest(machine)
    in_use = of_generations(made.list_folders(layout.generations))
    return digest, *made.choose(layout.environments, digest, damage, in_use)


def _make(machine: Machine, log: Path) -> None:
    layout = machine.layout
    digest, folder, whole = _choose(machine)
    if not whole:
        files.remove(folder)
        if not _grow(machine, folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            see_base = preinstalled.wanted(machine)
            python = preinstalled.base_python() if see_base else Path(sys.executable)
            uv.make_environment(folder, python, log, see_base=see_base)
        _install(machine, folder, log)
        hook.write(uv.site_packages(folder))
        if scripts(machine):
            files.unshare(uv.site_packages(folder), ".py")
        record(
            folder,
            digest=digest,
            pending=sorted(scripts(machine)),
            sees_base=preinstalled.wanted(machine),
        )
    if torch_proof.due(machine, made.read(folder)):
        family = torch_proof.prove(machine, folder, log)
        made.finish(folder, made.read(folder) | {"family": family})
    made.point(_pointer(layout), folder, digest)


def _foresee(machine: Machine, log: Path) -> list[str]:
    layout = machine.layout
    digest, folder, whole = _choose(machine)
    lines = _difference(machine)
    if not whole:
        foreseen = layout.kept(folder)
        foreseen.mkdir(parents=True)
        made.finish(foreseen, {"digest": digest, "pending": sorted(scripts(machine))})
    elif torch_proof.due(machine, made.read(folder)):
        lines.append("import the torch family, once")
    made.point(layout.kept(_pointer(layout)), folder, digest)
    return lines


def _difference(machine: Machine) -> list[str]:
    """Package by package, what the new environment has and the present one doesn't."""
    from rich.filesize import decimal

    wanted = packages.of(machine).packages
    try:
        there = environments.installed((machine.layout.current / "environment").resolve())
    except OSError:
        there = {}
    lines = []
    for name in sorted({*there, *wanted}):
        package = wanted.get(name)
        if package is None:
            lines.append(move(name, there[name], None))
        elif not fits(package, there.get(name)):
            size = f" ({decimal(package.size)})" if package.size else ""
            lines.append(move(name, there.get(name), package.shown) + size)
    return lines


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
    if receipt.get("sees_base", False) != preinstalled.wanted(machine):
        return False
    try:
        files.copy_tree(previous, folder, hard_links=True)
    except subprocess.CalledProcessError:
        files.remove(folder)
        return False
    return True


def _install(machine: Machine, folder: Path, log: Path) -> None:
    wanted, there = packages.of(machine).packages, environments.installed(folder)
    listed = packages.listed(machine, wanted)
    new = [name for name, package in wanted.items() if not fits(package, there.get(name))]
    told = partial(journal.tell, "environment")
    try:
        with uv_log.following(log, f"{len(new)} package{'' if len(new) == 1 else 's'}", told):
            uv.sync(folder, listed, *packages.where(machine), log)
    except process.CommandFailed as failed:
        raise _not_installed(machine, new, failed, log) from failed


def _not_installed(
    machine: Machine, new: list[str], failed: process.CommandFailed, log: Path
) -> Failure:
    said = "the locked packages can't be installed"
    if refusal := refused(failed.output):
        return Failure(f"{said}: {refusal}", log)
    lines = settling.why_not_installed(machine, new, log) if failed.code == REFUSED else []
    if lines:
        return Failure("\n    ".join([f"{said}: {lines[0]}", *lines[1:]]), log)
    mend = "see that the package index can be reached, then run doit again"
    return Failure(f"{said} ({gist(failed.output)}): {mend}", log)
