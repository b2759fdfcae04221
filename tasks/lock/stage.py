"""machine.lock: the commits of all repositories, and one resolve of all packages."""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from .. import nodes
from ..engine import lock_file
from ..engine.messages import tell, warn
from ..engine.step import Task, step
from ..host.python.build_log import Missing
from ..host.repositories.sources import Source
from ..host.system import files
from ..host.system.failure import Failure
from ..models import model_pins
from ..source import stage as source
from ..spec import CustomNode, Lock, Machine, Pin, PythonSet
from . import package_set, packages, preinstalled, pyproject, source_builds

SECTIONS = ("version", "comfyui", "custom_nodes", "python")
"""What this stage writes; the models stage writes its own."""


def tasks(machine: Machine) -> Iterator[Task]:
    yield step(
        "lock",
        "machine.lock: commits, and one resolve of all Python packages",
        check=partial(_outdated, machine),
        action=partial(_lock, machine),
        foresee=partial(_foresee, machine),
        log=machine.layout.log("lock"),
        after=["source", "nodes"],
    )


def _receipt(machine: Machine) -> Path:
    return machine.layout.receipts / "lock.json"


def _inputs(machine: Machine) -> dict[str, object]:
    """What the lock is made of, cheap to compute: files are read where no commit names them."""
    python = machine.python
    return {
        "sources": {
            source.NAME: [source.of(machine).asked, source.of(machine).read().get("commit")],
            **{f"node {node.name}": _version(machine, node) for node in nodes.fetched(machine)},
        },
        "python": [sys.version_info[:2], sysconfig.get_platform()],
        "settings": python.model_dump(mode="json"),
        "torch": [machine.instances.cpu_only, preinstalled.versions(machine)],
        "lock": None if machine.overridden else lock_file.digest(machine, *SECTIONS),
    }


def _version(machine: Machine, node: CustomNode) -> object:
    how = [node.requirements, node.optional]
    if node.path:
        texts = [p for p in files.walk(node.path) if p.suffix == ".txt" or p.name == pyproject.FILE]
        return [*how, files.tree_digest(node.path, texts)]
    of = nodes.source_of(machine, node)
    return [*how, of.asked, of.read().get("commit")]


def _outdated(machine: Machine) -> str | None:
    if machine.updates is not None:
        return "what may move is resolved anew"
    if machine.locked and machine.lock.python is None:
        return "machine.lock has no Python packages"
    receipt = files.read_receipt(machine.layout.seen(_receipt(machine)))
    if receipt.get("inputs") != files.digest(_inputs(machine)):
        return "what it is made of changed"
    if packages.known(machine) is None:
        return "the packages are not known"
    if receipt.get("again"):
        return f"what {', '.join(receipt['again'])} needs could not be had"
    for kind, name in receipt.get("missing", ()):
        if Missing(kind, name).there:
            return f"{name}, which a build lacked, is there now"
    _warn_left_out(machine)
    return None


def _warn_left_out(machine: Machine) -> None:
    for name, reason in nodes.left_out(machine).items():
        warn(f"custom node {name} (optional) is left out: {reason}")


def _lock(machine: Machine, log: Path) -> None:
    for line in _resolve_and_write(machine, log):
        tell(line)


def _foresee(machine: Machine, log: Path) -> list[str]:
    return _resolve_and_write(machine, log)


def _resolve_and_write(machine: Machine, log: Path) -> list[str]:
    """Complete the lock and write down which packages this machine is to have; what to say."""
    settled = package_set.settle(machine, log)
    # Before anything is built: what resolves is no matter of which compilers this machine has.
    said = _write_settled(machine, settled)
    if machine.overlay:
        due = source_builds.due(machine, settled.python.packages) if machine.updates is None else ()
        known = settled.python.packages
        said = [*settled.said, *said, *(f"build {n} {known[n].shown} from source" for n in due)]
    else:
        built = package_set.buildable(machine, settled, log)
        if built is not settled and not built.as_locked and not settled.as_locked:
            said = _write_settled(machine, built)
        settled = built
        said = [*settled.said, *said]
    packages.note(machine, settled.python)
    nodes.leave_out(machine, settled.python.left_out)
    _forget_removed(machine)
    _warn_left_out(machine)
    receipt = {
        "inputs": files.digest(_inputs(machine)),
        "again": settled.again,
        "missing": [[each.kind, each.name] for each in settled.missing],
    }
    files.write_receipt(machine.layout.kept(_receipt(machine)), receipt)
    return said


def _write_settled(machine: Machine, settled: package_set.Settled) -> list[str]:
    """Write the lock; a line of what there is to say of that."""
    if machine.overridden:
        return [f"the environment overrides machine.yaml: {_name(machine)} stays as it is"]
    # What could not be had here and now is no part of the lock, nor is the reason.
    away = settled.python.left_out.items()
    final = {name: reason for name, reason in away if name not in settled.absent}
    python = settled.python.model_copy(update={"left_out": final})
    return _write(machine, _whole(machine, python))


def _name(machine: Machine) -> str:
    return machine.lock_file.name


def _whole(machine: Machine, python: PythonSet) -> Lock:
    found = {node.name: _pin(nodes.source_of(machine, node)) for node in nodes.fetched(machine)}
    kept = {
        node.name: machine.lock.custom_nodes.get(node.name)
        for node in machine.custom_nodes
        if node.name not in found
    }
    pins = {name: pin for name, pin in {**kept, **found}.items() if pin}
    return Lock(comfyui=_pin(source.of(machine)), custom_nodes=pins, python=python)


def _pin(of: Source) -> Pin | None:
    return Pin(url=of.url, ref=of.ref, commit=of.read()["commit"]) if of.url else None


def _write(machine: Machine, lock: Lock) -> list[str]:
    """Replace the file when it says something else; a line if it can't be written."""
    if machine.locked:
        # Which optional nodes are left out is another machine's matter.
        gone = sorted(set(machine.lock.custom_nodes) - set(lock.custom_nodes))
        if gone:
            raise Failure(
                f"{_name(machine)} doesn't fit ({', '.join(gone)} left machine.yaml): "
                "run doit lock without locked=1, and commit the lock"
            )
        return []
    sections = {name: getattr(lock, name) for name in SECTIONS}
    if machine.overlay and machine.updates is None:
        same = all(getattr(machine.lock, name) == value for name, value in sections.items())
        return [] if same and machine.lock_file.exists() else [f"write {machine.lock_file}"]
    models = {"models": model_pins.moved(machine)} if machine.updates is not None else {}
    changed = lock_file.write(machine, **sections, **models)
    return [] if changed or machine.updates is None else ["nothing is newer"]


def _forget_removed(machine: Machine) -> None:
    """A node that comes back one day is resolved anew."""
    if machine.overlay:
        return
    declared = {f"{node.name}.json" for node in machine.custom_nodes}
    for receipt in nodes.receipts(machine).glob("*.json"):
        if receipt.name not in declared:
            receipt.unlink()
