"""Custom nodes' sources at their commits."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from .engine import journal
from .engine.messages import tell, warn
from .engine.step import Task, group, step
from .host.generations import left_out_nodes as away
from .host.repositories.sources import Source
from .host.system import files
from .host.system.failure import Failure
from .source import stage as source
from .spec import CustomNode, Machine


def source_of(machine: Machine, node: CustomNode) -> Source:
    return Source(
        name=node.name,
        url=node.url,
        path=None,
        ref=node.ref,
        recursive=node.recursive,
        receipt=_receipt(machine, node),
        layout=machine.layout,
        locked=machine.lock.custom_nodes.get(node.name),
        must_be_locked=machine.locked,
        update=machine.updating(node.name),
    )


def folder_of(machine: Machine, node: CustomNode) -> Path:
    """Where the node's files are read: its local folder, or its checkout."""
    if node.path:
        return node.path
    of = source_of(machine, node)
    return of.checkout(str(of.read().get("commit")))


def receipts(machine: Machine) -> Path:
    return machine.layout.receipts / "nodes"


def fetched(machine: Machine) -> list[CustomNode]:
    """The declared nodes, without the optional ones that could not be fetched."""
    return [
        node for node in machine.custom_nodes if not away.not_fetched(machine.layout, node.name)
    ]


def present(machine: Machine) -> list[CustomNode]:
    """The declared nodes, without the optional ones that are left out."""
    missing = left_out(machine)
    return [node for node in machine.custom_nodes if node.name not in missing]


def left_out(machine: Machine) -> dict[str, str]:
    """The optional nodes that are not part of the machine now, each with the reason."""
    return away.left_out(machine.layout, [node.name for node in machine.custom_nodes])


def leave_out(machine: Machine, unmet: dict[str, str]) -> None:
    """Write down the optional nodes whose requirements can't be met."""
    files.write_receipt(machine.layout.kept(away.unmet(machine.layout)), unmet)


def tasks(machine: Machine) -> Iterator[Task]:
    layout = machine.layout
    yield group("nodes", "Custom nodes' sources, at their commits")
    for node in machine.custom_nodes:
        yield step(
            f"nodes:{node.name}",
            f"Custom node {node.name}",
            check=partial(_missing, machine, node),
            action=partial(_obtain, machine, node),
            foresee=partial(_foresee, machine, node),
            log=layout.log(f"nodes:{node.name}"),
            after=["directories"],
            garbage=source_of(machine, node).checkouts,
        )


def _receipt(machine: Machine, node: CustomNode) -> Path:
    return away.node_receipt(machine.layout, node.name)


def _missing(machine: Machine, node: CustomNode) -> str | None:
    if reason := away.not_fetched(machine.layout, node.name):
        return f"it was left out: {reason}"
    if node.path:
        return None if node.path.is_dir() else f"{node.path} isn't there"
    return source_of(machine, node).why_not_there()


def _obtain(machine: Machine, node: CustomNode, log: Path) -> None:
    told = partial(journal.tell, f"nodes:{node.name}")
    for line in _fetch(machine, node, partial(source.fetch, log=log, told=told)):
        tell(line)


def _foresee(machine: Machine, node: CustomNode, log: Path) -> list[str]:
    return _fetch(machine, node, partial(source.foresee, log=log))


def _fetch(machine: Machine, node: CustomNode, fetch: source.Fetch) -> list[str]:
    """Obtain a node, or leave it out if it is optional and can't be had; every run tries again."""
    receipt = machine.layout.kept(_receipt(machine, node))
    try:
        if not node.path:
            return fetch(source_of(machine, node))
        if not node.path.is_dir():
            raise Failure(f"{node.path} isn't a folder: correct path")
        files.remove(receipt)
    except Failure as failure:
        if not node.optional:
            raise
        files.write_receipt(receipt, {"left_out": str(failure)})
        warn(f"custom node {node.name} (optional) is left out: {failure}")
    return []
