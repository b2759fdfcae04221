"""Node classes: what each custom node had in the build, and what an instance lists."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from ...spec.layout import Layout
from ..pm2.apps import App
from ..system import files, locks, private_folder
from . import api, load_result, warmup


def expected(generation: Path) -> dict[str, tuple[str, ...]]:
    """Custom node → its classes in the build; a node without classes, or unknown, is left out.

    The caller knows which nodes an instance doesn't load.
    """
    results = load_result.read(generation)
    return {name: result.classes for name, result in results.items() if result.classes}


def missing(
    expected: Mapping[str, Sequence[str]], classes: Collection[str]
) -> dict[str, list[str]]:
    """Custom node → those of its classes that an instance doesn't list.

    A class that another node defines counts: the disk's order decides which of two is loaded last.
    """
    found = {
        node: [name for name in names if name not in classes] for node, names in expected.items()
    }
    return {node: names for node, names in found.items() if names}


def listed(
    layout: Layout, gpu: int, app: App, listen: str, timeout: float = api.PROBE_TIMEOUT
) -> frozenset[str] | None:
    """The classes that an instance lists; None when it doesn't answer within `timeout` seconds.

    `GET /object_info` is asked once per start and recorded: with assets on, ComfyUI scans all its
    folders for each answer.
    """
    with locks.exclusive(private_folder.make(layout.workspace) / f"classes-gpu{gpu}.lock"):
        recorded = files.read_receipt(layout.classes(gpu), pid=int, started=float, classes=list)
        if warmup.is_of(app, recorded):
            return frozenset(map(str, recorded["classes"]))
        answer = api.ask(listen, app.port or 0, "/object_info", timeout, scheme=app.scheme)
        if not isinstance(answer, dict):
            return None
        warmup.record(layout, gpu, app, layout.classes(gpu), {"classes": sorted(answer)})
        return frozenset(answer)
