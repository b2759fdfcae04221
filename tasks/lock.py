"""machine.lock: the commits of all repositories, and one resolve of all packages."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tasks import nodes, preinstalled, requirements, resolution, source
from tasks.engine.said import move, tell, warn
from tasks.engine.step import Task, step
from tasks.host import files, gpu
from tasks.host.failure import Failure
from tasks.host.sources import Source
from tasks.requirements import Asked
from tasks.spec import CustomNode, Lock, Machine, Pin, PythonSet
from tasks.spec.lock import Asked as Recorded
from tasks.spec.lock import dumped


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


def python_set(machine: Machine) -> PythonSet:
    """The packages that this machine is to have. Raises Failure before the first resolve."""
    found = _known(machine)
    if found is None:
        raise Failure("its packages were never resolved")
    return found


def _python_file(machine: Machine) -> Path:
    return machine.layout.receipts / "python.json"


def _known(machine: Machine) -> PythonSet | None:
    receipt = files.read_receipt(machine.layout.seen(_python_file(machine)))
    try:
        return PythonSet.model_validate(receipt)
    except ValueError:
        return None


def _receipt(machine: Machine) -> Path:
    return machine.layout.receipts / "lock.json"


def _inputs(machine: Machine) -> dict[str, object]:
    """What the lock is made of, cheap to compute: files are read where no commit names them."""
    python = machine.python
    return {
        "sources": {
            **{source.NAME: source.of(machine).read().get("commit")},
            **{f"node {node.name}": _version(machine, node) for node in nodes.fetched(machine)},
        },
        "python": [sys.version_info[:2], sysconfig.get_platform()],
        "settings": python.model_dump(mode="json"),
        "torch": [machine.instances.cpu_only, preinstalled.versions(machine)],
        "lock": None if machine.overridden else files.file_digest(machine.lock_file),
        "locked": machine.locked,
    }


def _version(machine: Machine, node: CustomNode) -> object:
    how = [node.requirements, node.optional]
    if node.path:
        return [*how, *(files.file_digest(p) for p in sorted(node.path.glob("*requirements*.txt")))]
    return [*how, nodes.source_of(machine, node).read().get("commit")]


def _outdated(machine: Machine) -> str | None:
    if machine.updates is not None:
        return "what may move is resolved anew"
    receipt = files.read_receipt(machine.layout.seen(_receipt(machine)))
    if receipt.get("inputs") != files.digest(_inputs(machine)):
        return "what it is made of changed"
    if _known(machine) is None:
        return "the packages are not known"
    if receipt.get("again"):
        return f"what {', '.join(receipt['again'])} needs could not be had"
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
    """Complete the lock and write down which packages this machine is to have; the moves."""
    before = machine.lock.python or _known(machine)
    python, said, again = _python(machine, log)
    if not machine.overridden:
        said += _write(machine, _whole(machine, python))
    files.write_receipt(machine.layout.kept(_python_file(machine)), dumped(python))
    nodes.leave_out(machine, python.left_out)
    _forget_removed(machine)
    _warn_left_out(machine)
    receipt = {"inputs": files.digest(_inputs(machine)), "again": again}
    files.write_receipt(machine.layout.kept(_receipt(machine)), receipt)
    return said + _moves(before, python)


def _moves(before: PythonSet | None, after: PythonSet) -> list[str]:
    if before is None:
        return [f"{len(after.packages)} packages resolved"]
    names = sorted({*before.packages, *after.packages})
    old = {name: package.shown for name, package in before.packages.items()}
    new = {name: package.shown for name, package in after.packages.items()}
    return [
        move(name, old.get(name), new.get(name)) for name in names if old.get(name) != new.get(name)
    ]


def _python(machine: Machine, log: Path) -> tuple[PythonSet, list[str], list[str]]:
    """The set that fits what is asked: the lock's, the last one, or a new one.

    Then what to say, and the optional nodes to try again in every run.
    """
    asked, refused = _ask(machine)
    for known in (machine.lock.python, _known(machine)):
        if known and machine.updates is None and known.asked == _recorded(machine, asked):
            return known.model_copy(update={"left_out": {**known.left_out, **refused}}), [], []
    if machine.locked:
        raise Failure(_difference(machine, asked))
    before = machine.lock.python or _known(machine)
    torch = _torch(machine)
    problem = resolution.Problem(machine, tuple(asked), torch, before, log)
    solution = resolution.solve(problem)
    said = [
        f"{each.owner}: {line} is not used, it would concern every package; "
        "python.extra_index_urls and python.find_links do that"
        for each in asked
        for line in each.unused
    ]
    said += [f"{gone} is replaced by {one}" for gone, one in sorted(solution.reduced.items())]
    # Without the lines of those that could not be had, the next run asks for them anew.
    asked = [each for each in asked if not (each.node and each.node.name in solution.unreachable)]
    python = PythonSet(
        asked=_recorded(machine, asked).model_copy(update={"torch": solution.torch}),
        packages=solution.packages,
        left_out={**solution.left_out, **solution.unreachable, **refused},
        reduced=solution.reduced,
    )
    return python, said, sorted(solution.unreachable)


def _ask(machine: Machine) -> tuple[list[Asked], dict[str, str]]:
    """What everybody asks for, and the optional nodes that ask for what can't be taken."""
    preinstalled.insist(machine)
    asked, refused = [preinstalled.fitting(machine, requirements.of_comfyui(machine))], {}
    for node in nodes.fetched(machine):
        try:
            asked.append(preinstalled.fitting(machine, requirements.of_node(machine, node)))
        except requirements.Refused as refusal:
            if not node.optional:
                raise
            refused[node.name] = str(refusal)
    return asked, refused


def _recorded(machine: Machine, asked: list[Asked]) -> Recorded:
    python = machine.python
    return Recorded(
        python=".".join(map(str, sys.version_info[:2])),
        platform=sysconfig.get_platform(),
        torch=_torch(machine),
        overrides=python.overrides,
        prefer=python.prefer,
        find_links=tuple(_portable(machine, place) for place in python.find_links),
        extra_index_urls=python.extra_index_urls,
        requirements=requirements.recorded(asked),
    )


def _portable(machine: Machine, place: str) -> str:
    """A folder as machine.yaml names it, so that the lock fits another machine too."""
    if Path(place).is_absolute() and Path(place).is_relative_to(machine.workspace):
        return os.path.relpath(place, machine.workspace)
    return place


def _torch(machine: Machine) -> str:
    """Which build: machine.yaml's, else the lock's, else the driver's, else PyPI's.

    Without a driver uv's own `auto` means the CPU build, and an image would keep it.
    """
    wanted = machine.python.torch
    if wanted != "auto":
        return wanted
    usable = {"none": False, "preinstalled": False, "cpu": machine.instances.cpu_only}
    for known in (machine.lock.python, _known(machine)):
        if known and usable.get(known.asked.torch, True) and not machine.updating("torch"):
            return known.asked.torch
    if machine.instances.cpu_only:
        return "cpu"
    return "auto" if gpu.driver_present() else "pypi"


def _difference(machine: Machine, asked: list[Asked]) -> str:
    """Which part of what is asked the lock doesn't have."""
    mend = "run doit lock without locked=1, and commit the lock"
    known = machine.lock.python
    if known is None:
        return f"machine.lock has no Python packages: {mend}"
    old, new = dumped(known.asked), dumped(_recorded(machine, asked))
    for key in sorted({*old, *new} - {"requirements"}):
        if old.get(key) != new.get(key):
            was, now = old.get(key), new.get(key)
            return f"machine.lock was made for {key} {was}, here it is {now}: {mend}"
    locked, here = known.asked.requirements, requirements.recorded(asked)
    lines = _changed("ComfyUI", locked.comfyui, here.comfyui)
    for owner in sorted({*locked.custom_nodes, *here.custom_nodes}):
        lines += _changed(
            owner, locked.custom_nodes.get(owner, ()), here.custom_nodes.get(owner, ())
        )
    return f"machine.lock doesn't have what is asked for ({'; '.join(lines)}): {mend}"


def _changed(owner: str, was: tuple[str, ...], now: tuple[str, ...]) -> list[str]:
    added = [f"{owner} now asks for {line!r}" for line in now if line not in was]
    return added + [f"{owner} no longer asks for {line!r}" for line in was if line not in now]


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
    if lock == machine.lock and machine.lock_file.exists():
        return []
    if machine.locked:
        gone = sorted(set(machine.lock.custom_nodes) - set(lock.custom_nodes))
        what = f"{', '.join(gone)} left machine.yaml" if gone else "it lacks what was resolved"
        raise Failure(
            f"{machine.lock_file.name} doesn't fit ({what}): "
            "run doit lock without locked=1, and commit the lock"
        )
    if machine.overlay:
        return [f"write {machine.lock_file}"]
    try:
        files.write_text(machine.lock_file, lock.text())
    except OSError as error:
        warn(
            f"{machine.lock_file} can't be written ({error.strerror}): what was resolved is kept "
            f"in {machine.layout.receipts} only"
        )
    return []


def _forget_removed(machine: Machine) -> None:
    """A node that comes back one day is resolved anew."""
    if machine.overlay:
        return
    declared = {f"{node.name}.json" for node in machine.custom_nodes}
    for receipt in nodes.receipts(machine).glob("*.json"):
        if receipt.name not in declared:
            receipt.unlink()
