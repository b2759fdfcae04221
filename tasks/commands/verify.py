"""doit verify: models and Python environments are read and hashed again, file by file; what is not
what was fetched or installed is named, and mended if asked."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from doit.exceptions import InvalidCommand

from ..engine.configuration import load_run
from ..engine.run_command import RunCommand
from ..engine.run import Run
from ..environment import stage as environment
from ..environment import verification
from ..host.downloads.store import Store
from ..host.python import altered_files
from ..host.system import thread_pool
from ..host.system.failure import Failure
from ..host.system.progress import Progress, duration, size
from ..host.system.run_lock import RunLock, Taken
from ..links import stage as links
from ..models import model_pins
from ..models import stage as models
from .shared.command import flag

READERS = 4
"""Files at once; enough for a fast disk, and not too many for a slow one."""


class Verify(RunCommand):
    doc_purpose = "read and hash every model and package again; name what rotted"
    doc_usage = ""
    doc_description = (
        "What is damaged is fetched again with --fetch, or by the next doit. An environment from "
        "which instances run is left to that: it is made anew beside the damaged one, and they "
        "move over. Exit code 1 when something is damaged or missing and was not mended."
    )
    cmd_options = (
        *RunCommand.cmd_options,
        flag("fetch", "fetch and install again what is damaged or missing"),
    )

    def execute(self, params: Any, args: list[str]) -> Any:
        if args:
            raise InvalidCommand(f"verify takes no names: {' '.join(args)}")
        run = load_run()
        if run.machine.lock_damage:
            raise InvalidCommand(run.machine.lock_damage)
        spoilt = _verify_environments(run, mend=params["fetch"])
        rotten, lost = _verify(run)
        if rotten and params["fetch"]:
            code = super().execute(params, ["models"])
            return code or (1 if lost or spoilt else 0)
        if rotten:
            print("doit verify --fetch, or the next doit, fetches them again")
        return 1 if rotten or lost or spoilt else 0


def _verify_environments(run: Run, *, mend: bool) -> bool:
    """Whether something is damaged in an environment, and was not mended."""
    folders = verification.kept(run)
    if not folders:
        return False
    progress = Progress("verify")
    with run.board.following(progress):
        looks = verification.look(folders, progress)
    for look in looks:
        altered_files.note_spoilt(look.folder, look.spoilt)
        for each in look.spoilt:
            what = "is missing" if each.gone else "isn't what was installed"
            print(f"✗ {each.path} of {each.package} {what} (environment {look.folder.name})")
        for path, known in look.known.items():
            print(
                f"! {path} of {known.package} isn't what was installed (environment "
                f"{look.folder.name}): {known.who} wrote into it, and would do it again"
            )
    total, number = sum(look.files for look in looks), len(looks)
    seconds, read = progress.snapshot()["seconds"], progress.snapshot()["bytes_done"]
    print(
        f"{total - sum(len(look.spoilt) for look in looks)} of {total} files of {number} Python "
        f"environment{'' if number == 1 else 's'} are right: {size(read)} read in "
        f"{duration(seconds)}"
    )
    left = [_left(run, look, mend=mend) for look in looks if look.spoilt]
    return any(left)


def _left(run: Run, look: verification.Look, *, mend: bool) -> bool:
    """Whether this environment stays damaged."""
    name = look.folder.name
    if name in environment.in_use(run):
        print(f"from {name} instances run: the next doit makes it anew, and they move over")
        return True
    if not mend:
        print(f"doit verify --fetch mends {name}")
        return True
    lock = RunLock(run.machine.workspace)
    try:
        lock.take("verify")
    except Taken as taken:
        print(f"{name} is not mended: {taken}")
        return True
    try:
        verification.mend(run, look, run.layout.log("verify"))
        print(f"{name} is mended")
        return False
    except Failure as failure:
        print(f"{name} is not mended: {failure}")
        return True
    finally:
        lock.give_back()


def _verify(run: Run) -> tuple[list[str], list[str]]:
    """Damaged downloads, and damaged files that are not ours to fetch."""
    store, noted = models.store_of(run), model_pins.noted(run)
    pins = {f.target: model_pins.pin(run, f, noted) for f in model_pins.wanted(run)}
    targets: dict[str, list[str]] = {}
    for target, pin in pins.items():
        targets.setdefault(pin.sha256 or "", []).append(target)
    never = targets.pop("", [])
    sources = {str(file.source): file for file in links.held(run)}
    progress = Progress("verify")
    for name in [*targets, *sources]:
        at = store.place(name) if name in targets else Path(name)
        progress.add(name, at.stat().st_size if at.exists() else 0)
    with run.board.following(progress):
        found = thread_pool.each(partial(_sound, store, progress), targets, READERS)
        given = thread_pool.each(partial(links.sound, run, progress), sources.values(), READERS)
    rotten = [target for sha256, why in found if why for target in targets[sha256]]
    for sha256, why in found:
        if why:
            print(f"✗ {', '.join(targets[sha256])}: {why}")
    for target in never:
        print(f"✗ {target}: was never fetched")
    lost = [file.target for file, why in given if why]
    for file, why in given:
        if why:
            print(f"✗ {file.target}: {file.source} {why}: replace it, or correct sha256")
    shot = progress.snapshot()
    seconds, read = shot["seconds"], shot["bytes_done"]
    rate = f" ({size(read / seconds)}/s)" if seconds >= 1 else ""
    right = sum(why is None for _, why in [*found, *given])
    print(
        f"{right} of {len(found) + len(given) + len(never)} files are right: {size(read)} read in "
        f"{duration(seconds)}{rate}"
    )
    return [*rotten, *never], lost


def _sound(store: Store, progress: Progress, sha256: str) -> str | None:
    """None, or what is wrong with a file of the store."""
    failed = True
    try:
        if not store.place(sha256).exists():
            return "isn't in the store"
        failed = not store.verify(sha256, progress, sha256)
        return f"its content is no longer what it was (sha256 {sha256})" if failed else None
    except OSError as error:
        return f"can't be read ({error.strerror})"
    finally:
        progress.end(sha256, failed=failed)
