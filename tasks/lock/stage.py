"""machine.lock: the commits of all repositories, and one resolution of all packages."""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from .. import nodes
from ..engine import lock_file
from ..engine.run import Run
from ..engine.step import Task, step
from ..host.python.build_log import Missing
from ..host.system import files
from ..host.system.failure import Failure
from ..host.system.program_files import PROGRAM
from ..models import model_pins
from ..source import stage as source
from ..spec import CustomNode, Lock, PythonSet
from . import package_set, packages, preinstalled, pyproject, source_builds

SECTIONS = ("version", "comfyui", "custom_nodes", "python")
"""The sections that this stage writes; the models stage writes its own."""


def tasks(run: Run) -> Iterator[Task]:
    yield step(
        run,
        "lock",
        "machine.lock: commits, and one resolution of all Python packages",
        check=partial(_why_outdated, run),
        action=partial(_lock, run),
        preview=partial(_resolve_and_write, run),
        after=["source", "nodes"],
    )


def _receipt(run: Run) -> Path:
    return run.layout.receipts / "lock.json"


def _inputs(run: Run) -> dict[str, object]:
    """What the lock depends on, cheap to compute: reads files only where no commit names them."""
    python = run.machine.python
    return {
        "sources": {
            source.NAME: [source.source_of(run).asked, source.source_of(run).read().get("commit")],
            **{f"node {node.name}": _version(run, node) for node in nodes.fetched_nodes(run)},
        },
        "python": [sys.version_info[:2], sysconfig.get_platform()],
        "settings": python.model_dump(mode="json"),
        "torch": [run.machine.instances.cpu_only, preinstalled.versions(run)],
        "lock": None if run.machine.overridden else lock_file.digest(run, *SECTIONS),
    }


def _version(run: Run, node: CustomNode) -> object:
    how = [node.requirements, node.optional]
    if node.path:
        texts = [p for p in files.walk(node.path) if p.suffix == ".txt" or p.name == pyproject.FILE]
        return [*how, files.tree_digest(node.path, texts)]
    of = nodes.source_of(run, node)
    return [*how, of.asked, of.read().get("commit")]


def _why_outdated(run: Run) -> str | None:
    if run.updates is not None:
        return "an update resolves again"
    if run.locked and run.machine.lock.python is None:
        return "machine.lock has no Python packages"
    receipt = files.read_receipt(run.layout.read_path(_receipt(run)))
    if receipt.get("inputs") != files.digest(_inputs(run)):
        return "its inputs changed"
    if packages.last_resolved(run) is None:
        return "no resolved packages are on disk"
    if receipt.get("again"):
        return f"packages of {', '.join(receipt['again'])} could not be reached before"
    for kind, name in receipt.get("missing", ()):
        if Missing(kind, name).there:
            return f"{name}, which a build lacked, is installed now"
    _warn_left_out(run)
    return None


def _warn_left_out(run: Run) -> None:
    for name, reason in nodes.left_out(run).items():
        run.warn(f"custom node {name} (optional) is left out: {reason}")


def _lock(run: Run, log: Path) -> None:
    for line in _resolve_and_write(run, log):
        run.tell(line)


def _resolve_and_write(run: Run, log: Path) -> list[str]:
    """Complete machine.lock and record this machine's packages; return lines of news."""
    chosen = package_set.choose(run, log)
    # Before any build: the resolution doesn't depend on this machine's compilers.
    news = _write_settled(run, chosen)
    if run.overlay:
        due = source_builds.not_built(run, chosen.python.packages) if run.updates is None else ()
        locked = chosen.python.packages
        news = [*chosen.news, *news, *(f"build {n} {locked[n].shown} from source" for n in due)]
    else:
        built = package_set.buildable(run, chosen, log)
        if built is not chosen and not built.as_locked and not chosen.as_locked:
            news = _write_settled(run, built)
        chosen = built
        news = [*chosen.news, *news]
    packages.record(run, chosen.python)
    nodes.record_left_out(run, chosen.python.left_out)
    _remove_stale_receipts(run)
    _warn_left_out(run)
    receipt = {
        "inputs": files.digest(_inputs(run)),
        "again": chosen.retry,
        "missing": [[each.kind, each.name] for each in chosen.missing],
    }
    files.write_receipt(run.layout.write_path(_receipt(run)), receipt)
    return news


def _write_settled(run: Run, chosen: package_set.PackageSet) -> list[str]:
    if run.machine.overridden:
        return [
            f"the environment overrides machine.yaml: {run.machine.lock_file.name} stays as it is"
        ]
    # The lock doesn't record what is unavailable only here and now.
    left_out = chosen.python.left_out.items()
    final = {name: reason for name, reason in left_out if name not in chosen.unavailable}
    python = chosen.python.model_copy(update={"left_out": final})
    return _write(run, _complete_lock(run, python))


def _complete_lock(run: Run, python: PythonSet) -> Lock:
    pins_now = {n.name: nodes.source_of(run, n).found for n in nodes.fetched_nodes(run)}
    kept = {
        node.name: run.machine.lock.custom_nodes.get(node.name)
        for node in run.machine.custom_nodes
        if node.name not in pins_now
    }
    pins = {name: pin for name, pin in {**kept, **pins_now}.items() if pin}
    return Lock(comfyui=source.source_of(run).found, custom_nodes=pins, python=python)


def _write(run: Run, lock: Lock) -> list[str]:
    """Write the file if it differs; return lines of news. Raises Failure with locked=1."""
    if run.locked:
        # Another machine may leave out other optional nodes.
        removed = sorted(set(run.machine.lock.custom_nodes) - set(lock.custom_nodes))
        if removed:
            raise Failure(
                f"{run.machine.lock_file.name} doesn't fit ({', '.join(removed)} left "
                f"machine.yaml): run {PROGRAM} lock without locked=1, and commit the lock"
            )
        return []
    # Once they are resolved, the lock's own versions are preferred.
    sections = {name: getattr(lock, name) for name in (*SECTIONS, "preferred")}
    if run.overlay and run.updates is None:
        same = all(getattr(run.machine.lock, name) == value for name, value in sections.items())
        return [] if same and run.machine.lock_file.exists() else [f"write {run.machine.lock_file}"]
    models = {"models": model_pins.newest_pins(run)} if run.updates is not None else {}
    changed = lock_file.write(run, **sections, **models)
    return [] if changed or run.updates is None else ["nothing is newer"]


def _remove_stale_receipts(run: Run) -> None:
    """Remove the receipts of undeclared nodes, so that one that returns is resolved again."""
    if run.overlay:
        return
    declared = {f"{node.name}.json" for node in run.machine.custom_nodes}
    for receipt in nodes.receipts(run).glob("*.json"):
        if receipt.name not in declared:
            receipt.unlink()
