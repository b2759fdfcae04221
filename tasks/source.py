"""ComfyUI's source at its commit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from tasks.engine import journal
from tasks.engine.said import move, tell
from tasks.engine.step import Task, step
from tasks.host import files
from tasks.host.failure import Failure
from tasks.host.progress import Told, unheard
from tasks.host.sources import Source
from tasks.spec import Machine

NAME = "ComfyUI"
Fetch = Callable[[Source], list[str]]


def of(machine: Machine) -> Source:
    layout = machine.layout
    entry = machine.comfyui
    return Source(
        name=NAME,
        url=entry.repo,
        path=entry.path,
        ref=entry.ref,
        recursive=False,
        receipt=layout.receipts / "source.json",
        layout=layout,
        locked=machine.lock.comfyui,
        must_be_locked=machine.locked,
        update=machine.updating(NAME, NAME.lower()),
    )


def tasks(machine: Machine) -> Iterator[Task]:
    source = of(machine)
    yield step(
        "source",
        "ComfyUI's source, at its commit",
        check=source.why_not_there,
        action=partial(_obtain, source),
        foresee=partial(_foresee, source),
        log=machine.layout.log("source"),
        after=["directories"],
        garbage=source.checkouts,
    )


def fetch(source: Source, log: Path, told: Told = unheard) -> list[str]:
    """Obtain a source; how its commit moved, if it was there before."""
    before = source.read().get("commit")
    source.obtain(log, told)
    after = source.read()["commit"]
    return [move(source.name, before[:12], after[:12])] if before and before != after else []


def foresee(source: Source, log: Path) -> list[str]:
    """What `fetch` would do; the checkout goes into the plan's overlay."""
    there = source.read().get("commit")
    moves = fetch(source, log)
    return moves or ([] if there else [f"clone {source.url or source.path} at {source.commit}"])


def _obtain(source: Source, log: Path) -> None:
    for line in fetch(source, log, partial(journal.tell, "source")):
        tell(line)
    _insist_on_comfyui(source)


def _foresee(source: Source, log: Path) -> list[str]:
    lines = foresee(source, log)
    _insist_on_comfyui(source)
    return lines


def _insist_on_comfyui(source: Source) -> None:
    checkout = source.checkout(str(source.read()["commit"]))
    if not (checkout / "main.py").is_file():
        files.remove(source.layout.kept(source.receipt))
        raise Failure(f"{source.url} isn't ComfyUI, it has no main.py: correct comfyui.repo")
