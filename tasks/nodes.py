"""Custom nodes' sources at their commits."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from .engine.run import Run
from .engine.step import Task, group, step
from .host.generations import left_out_nodes as away
from .host.repositories.sources import Source
from .host.system import files
from .host.system.failure import Failure
from .source import stage as source
from .spec import CustomNode


def source_of(run: Run, node: CustomNode) -> Source:
    return Source(
        name=node.name,
        url=node.url,
        path=None,
        ref=node.version if node.id else node.ref,
        recursive=node.recursive,
        receipt=_receipt(run, node),
        layout=run.layout,
        locked=run.machine.lock.custom_nodes.get(node.name),
        must_be_locked=run.locked,
        update=run.updating(node.name),
        id=node.id,
        registry=run.machine.registry.url,
    )


def folder_of(run: Run, node: CustomNode) -> Path:
    """The node's local folder, or its checkout."""
    if node.path:
        return node.path
    of = source_of(run, node)
    return of.checkout(str(of.read().get("commit")))


def receipts(run: Run) -> Path:
    return run.layout.receipts / "nodes"


def fetched_nodes(run: Run) -> list[CustomNode]:
    """The declared nodes without the optional ones that could not be fetched."""
    return [
        node for node in run.machine.custom_nodes if not away.not_fetched(run.layout, node.name)
    ]


def present_nodes(run: Run) -> list[CustomNode]:
    """The declared nodes without the optional ones that are left out."""
    missing = left_out(run)
    return [node for node in run.machine.custom_nodes if node.name not in missing]


def left_out(run: Run) -> dict[str, str]:
    """Optional node that is left out now → the reason."""
    return away.left_out(run.layout, [node.name for node in run.machine.custom_nodes])


def record_left_out(run: Run, unmet: dict[str, str]) -> None:
    """Record the optional nodes whose requirements can't be met, each with the reason."""
    files.write_receipt(run.layout.write_path(away.unmet(run.layout)), unmet)


def tasks(run: Run) -> Iterator[Task]:
    yield group("nodes", "Custom nodes' sources, at their commits")
    for node in run.machine.custom_nodes:
        yield step(
            run,
            f"nodes:{node.name}",
            f"Custom node {node.name}",
            check=partial(_missing, run, node),
            action=partial(_obtain, run, node),
            preview=partial(_preview, run, node),
            after=["directories"],
            garbage=source_of(run, node).checkouts,
        )


def _receipt(run: Run, node: CustomNode) -> Path:
    return away.node_receipt(run.layout, node.name)


def _missing(run: Run, node: CustomNode) -> str | None:
    if reason := away.not_fetched(run.layout, node.name):
        return f"left out: {reason}"
    if node.path:
        return None if node.path.is_dir() else f"{node.path} is missing"
    return source_of(run, node).why_not_there()


def _obtain(run: Run, node: CustomNode, log: Path) -> None:
    on_progress = partial(run.progress, f"nodes:{node.name}")
    for line in _fetch(run, node, partial(source.fetch, run, log=log, on_progress=on_progress)):
        run.tell(line)


def _preview(run: Run, node: CustomNode, log: Path) -> list[str]:
    return _fetch(run, node, partial(source.preview, run, log=log))


def _fetch(run: Run, node: CustomNode, fetch: source.Fetch) -> list[str]:
    """Obtain a node; leave out an optional one that fails. Every run tries it again."""
    receipt = run.layout.write_path(_receipt(run, node))
    try:
        if not node.path:
            return fetch(source_of(run, node))
        if not node.path.is_dir():
            raise Failure(f"{node.path} isn't a folder: correct path")
        files.remove(receipt)
    except Failure as failure:
        if not node.optional:
            raise
        files.write_receipt(receipt, {"left_out": str(failure)})
        run.warn(f"custom node {node.name} (optional) is left out: {failure}")
    return []
