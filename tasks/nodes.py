"""Custom nodes' sources at their commits."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tasks.engine.step import Task, group, step
from tasks.engine.warnings import warn
from tasks.host import files
from tasks.host.failure import Failure
from tasks.host.sources import Source
from tasks.spec import CustomNode, Machine
from tasks.spec.layout import Layout


def source_of(machine: Machine, node: CustomNode) -> Source:
    layout = machine.layout
    return Source(
        name=node.name,
        url=node.url,
        path=None,
        ref=node.ref,
        recursive=node.recursive,
        receipt=_receipt(layout, node),
        folder=layout.sources,
    )


def folder_of(machine: Machine, node: CustomNode) -> Path:
    """Where the node's files are read: its local folder, or its checkout."""
    if node.path:
        return node.path
    source = source_of(machine, node)
    return source.checkout(str(source.read().get("commit")))


def left_out(machine: Machine, node: CustomNode) -> str | None:
    """Why an optional node is not part of the machine now, None when it is."""
    reason = files.read_receipt(_receipt(machine.layout, node)).get("left_out")
    return str(reason) if reason else None


def present(machine: Machine) -> list[CustomNode]:
    """The declared nodes, without the optional ones that could not be fetched."""
    return [node for node in machine.custom_nodes if not left_out(machine, node)]


def leave_out(machine: Machine, node: CustomNode, reason: str) -> None:
    """Go on without an optional node; every run tries it again."""
    files.write_receipt(_receipt(machine.layout, node), {"left_out": reason})
    warn(f"custom node {node.name} (optional) is left out: {reason}")


def tasks(machine: Machine) -> Iterator[Task]:
    layout = machine.layout
    yield group("nodes", "Custom nodes' sources, at their commits")
    for node in machine.custom_nodes:
        yield step(
            f"nodes:{node.name}",
            f"Custom node {node.name}",
            check=partial(_missing, machine, node),
            action=partial(_obtain, machine, node),
            log=layout.log(f"nodes:{node.name}"),
            after=["directories"],
            garbage=source_of(machine, node).checkouts,
        )


def _receipt(layout: Layout, node: CustomNode) -> Path:
    return layout.receipts / "nodes" / f"{node.name}.json"


def _missing(machine: Machine, node: CustomNode) -> str | None:
    if reason := left_out(machine, node):
        return f"it was left out: {reason}"
    if node.path:
        return None if node.path.is_dir() else f"{node.path} isn't there"
    return source_of(machine, node).why_not_there()


def _obtain(machine: Machine, node: CustomNode, log: Path) -> None:
    try:
        if node.path:
            if not node.path.is_dir():
                raise Failure(f"{node.path} isn't a folder: correct path")
            files.remove(_receipt(machine.layout, node))
        else:
            source_of(machine, node).obtain(log)
    except Failure as failure:
        if not node.optional:
            raise
        leave_out(machine, node, str(failure))
