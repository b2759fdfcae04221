"""ComfyUI's source at its commit."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tasks.engine.step import Task, step
from tasks.host import files
from tasks.host.failure import Failure
from tasks.host.sources import Source
from tasks.spec import Machine


def of(machine: Machine) -> Source:
    layout = machine.layout
    entry = machine.comfyui
    return Source(
        name="ComfyUI",
        url=entry.repo,
        path=entry.path,
        ref=entry.ref,
        recursive=False,
        receipt=layout.receipts / "source.json",
        folder=layout.sources,
    )


def tasks(machine: Machine) -> Iterator[Task]:
    layout = machine.layout
    source = of(machine)

    yield step(
        "source",
        "ComfyUI's source, at its commit",
        check=source.why_not_there,
        action=partial(_obtain, source),
        log=layout.log("source"),
        after=["directories"],
        garbage=source.checkouts,
    )


def _obtain(source: Source, log: Path) -> None:
    source.obtain(log)
    checkout = source.checkout(str(source.read()["commit"]))
    if not (checkout / "main.py").is_file():
        files.remove(source.receipt)
        raise Failure(f"{source.url} isn't ComfyUI, it has no main.py: correct comfyui.repo")
