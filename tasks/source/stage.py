"""ComfyUI's source at its commit."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from ..engine.messages import describe_move
from ..engine.run import Run
from ..engine.step import Task, step
from ..host.comfyui import source_facts
from ..host.comfyui.source_facts import Code
from ..host.repositories.sources import Source
from ..host.system import files, process
from ..host.system.failure import Failure
from ..host.system.progress import OnProgress, ignore_progress
from . import arguments, targets

NAME = "ComfyUI"
Fetch = Callable[[Source], list[str]]


def source_of(run: Run) -> Source:
    layout = run.layout
    entry = run.machine.comfyui
    return Source(
        name=NAME,
        url=entry.repo,
        path=entry.path,
        ref=entry.ref,
        recursive=False,
        receipt=layout.receipts / "source.json",
        layout=layout,
        locked=run.machine.lock.comfyui,
        must_be_locked=run.locked,
        update=run.updating(NAME, NAME.lower()),
    )


def tasks(run: Run) -> Iterator[Task]:
    source = source_of(run)
    yield step(
        run,
        "source",
        "ComfyUI's source, at its commit; it accepts machine.yaml's arguments",
        check=partial(_why_outdated, run),
        action=partial(_obtain, run),
        preview=partial(_preview, run),
        after=["directories"],
        garbage=source.checkouts,
    )


def fetch(
    run: Run, source: Source, log: Path, on_progress: OnProgress = ignore_progress
) -> list[str]:
    """Obtain a source; return a line about the move of its commit, if it was there before."""
    before, shown, missed = source.read().get("commit"), source.shown, source.large
    source.obtain(log, on_progress)
    after = source.read()["commit"]
    if source.read().get("deprecated"):
        run.warn(f"{source.name}: the registry calls {source.shown} of {source.id} deprecated")
    if source.large.left and source.large != missed:
        run.warn(f"{source.name}: {source.large}; {source.large.mend}")
    return [describe_move(source.name, shown, source.shown)] if before and before != after else []


def preview(run: Run, source: Source, log: Path) -> list[str]:
    """Like `fetch`, into the plan's overlay; return lines that say what a run would do."""
    there = source.read().get("commit")
    moves = fetch(run, source, log)
    what = f"fetch {source.id} {source.shown} from the registry"
    if not source.id:
        what = f"clone {source.url or source.path} at {source.commit}"
    return moves or ([] if there else [what])


def code_of(run: Run) -> Code:
    """The facts about ComfyUI's code, as far as doit's own Python could read them."""
    return source_facts.of(files.read_receipt(run.layout.read_path(_code_receipt(source_of(run)))))


def pinned(run: Run, code: Code, python: Path, log: Path | None = None) -> arguments.PinnedComfyUI:
    """This ComfyUI, to check arguments against it."""
    source = source_of(run)
    commit = str(source.read()["commit"])
    return arguments.PinnedComfyUI(code, commit, source.checkout(commit), python, log)


def _code_receipt(source: Source) -> Path:
    checkout = source.layout.sources / source.checkout(str(source.read().get("commit"))).name
    return checkout.with_name(f"{checkout.name}.code.json")


def _why_outdated(run: Run) -> str | None:
    source = source_of(run)
    if reason := source.why_not_there():
        targets.say(run)
        return reason
    if not source.layout.read_path(_code_receipt(source)).is_file():
        return f"the flags of {source.name} are not read yet"
    code = code_of(run)
    targets.warn(run, code)
    return arguments.reason_to_check(run, code, source.read()["commit"])


def _obtain(run: Run, log: Path) -> None:
    for line in fetch(run, source_of(run), log, partial(run.progress, "source")):
        run.tell(line)
    _read_code(run, log)


def _preview(run: Run, log: Path) -> list[str]:
    lines = preview(run, source_of(run), log)
    _read_code(run, log)
    return lines


def _read_code(run: Run, log: Path) -> None:
    source = source_of(run)
    checkout = source.checkout(str(source.read()["commit"]))
    if not (checkout / "main.py").is_file():
        files.remove(source.layout.write_path(source.receipt))
        raise Failure(f"{source.url} has no main.py, so it isn't ComfyUI: correct comfyui.repo")
    python, env = Path(sys.executable), process.allowed_environment(os.environ)
    code = source_facts.ask(python, checkout, env, log)
    receipt = source.layout.write_path(_code_receipt(source))
    files.clear_way(receipt)
    files.write_receipt(receipt, code.receipt())
    targets.warn(run, code)
    arguments.check_arguments(run, pinned(run, code, python, log))
