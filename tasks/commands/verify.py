"""doit verify: hash all models and Python environments again, report damaged files, and repair
them with --fetch."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from doit.exceptions import InvalidCommand

from ..engine.configuration import load_run
from ..engine.run import Run
from ..engine.run_command import RunCommand
from ..environment import stage as environment
from ..environment import verification
from ..host.downloads.store import Store
from ..host.python import altered_files
from ..host.system import thread_pool
from ..host.system.failure import Failure
from ..host.system.progress import Progress
from ..host.system.run_lock import Taken
from ..host.system.units import duration, size
from ..links import stage as links
from ..models import model_pins
from ..models import stage as models
from .shared.command import locked, option


class Verify(RunCommand):
    doc_purpose = "hash every model and package again; report damaged files"
    doc_usage = ""
    doc_description = (
        "--fetch, or the next doit, fetches damaged files again. An environment that instances run "
        "from is left to doit, which makes a new one and moves the instances over. Exit code 1 "
        "when something is damaged or missing and was not repaired."
    )
    cmd_options = (
        *RunCommand.cmd_options,
        option("fetch", "fetch and install damaged and missing files again"),
    )

    def execute(self, params: Any, args: list[str]) -> Any:
        if args:
            raise InvalidCommand(f"verify takes no names: {' '.join(args)}")
        run = load_run()
        if run.machine.lock_damage:
            raise InvalidCommand(run.machine.lock_damage)
        spoilt = _verify_environments(run, repair=params["fetch"])
        rotten, lost = _verify_models(run)
        if rotten and params["fetch"]:
            code = super().execute(params, ["models"])
            return code or (1 if lost or spoilt else 0)
        if rotten:
            print("doit verify --fetch, or the next doit, fetches them again")
        return 1 if rotten or lost or spoilt else 0


def _verify_environments(run: Run, *, repair: bool) -> bool:
    """Whether an environment is damaged and was not repaired."""
    folders = verification.whole_environments(run)
    if not folders:
        return False
    progress = Progress("verify")
    with run.board.following(progress):
        looks = verification.check(folders, progress)
    for look in looks:
        altered_files.note_spoilt(look.folder, look.spoilt)
        for each in look.spoilt:
            what = "is missing" if each.gone else "isn't what was installed"
            print(f"✗ {each.path} of {each.package} {what} (environment {look.folder.name})")
        for path, known in look.known.items():
            print(
                f"! {path} of {known.package} isn't what was installed (environment "
                f"{look.folder.name}): {known.who} wrote into it, and will do so again"
            )
    total, number = sum(look.files for look in looks), len(looks)
    seconds, read = progress.snapshot()["seconds"], progress.snapshot()["bytes_done"]
    print(
        f"{total - sum(len(look.spoilt) for look in looks)} of {total} files of {number} Python "
        f"environment{'' if number == 1 else 's'} are intact: {size(read)} read in "
        f"{duration(seconds)}"
    )
    left = [_stays_damaged(run, look, repair=repair) for look in looks if look.spoilt]
    return any(left)


def _stays_damaged(run: Run, look: verification.CheckedEnvironment, *, repair: bool) -> bool:
    name = look.folder.name
    if name in environment.in_use(run):
        print(f"instances run from {name}: the next doit makes a new one and moves them over")
        return True
    if not repair:
        print(f"doit verify --fetch repairs {name}")
        return True
    try:
        with locked(run, "verify"):
            verification.repair(run, look, run.layout.log("verify"))
    except (Failure, Taken) as error:
        print(f"{name} is not repaired: {error}")
        return True
    print(f"{name} is repaired")
    return False


def _verify_models(run: Run) -> tuple[list[str], list[str]]:
    """Targets of damaged downloads, and of damaged files that no run can fetch."""
    store, records = models.store_of(run), model_pins.read_records(run)
    pins = {f.target: model_pins.pin(run, f, records) for f in model_pins.downloads(run)}
    targets: dict[str, list[str]] = {}
    for target, pin in pins.items():
        targets.setdefault(pin.sha256 or "", []).append(target)
    never = targets.pop("", [])
    sources = {str(file.source): file for file in links.pinned_sources(run)}
    progress = Progress("verify")
    for name in [*targets, *sources]:
        at = store.place(name) if name in targets else Path(name)
        progress.add(name, at.stat().st_size if at.exists() else 0)
    with run.board.following(progress):
        found = thread_pool.each(
            partial(_store_problem, store, progress), targets, verification.READERS
        )
        given = thread_pool.each(
            partial(links.verify_source, run, progress), sources.values(), verification.READERS
        )
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
        f"{right} of {len(found) + len(given) + len(never)} files are intact: {size(read)} read in "
        f"{duration(seconds)}{rate}"
    )
    return [*rotten, *never], lost


def _store_problem(store: Store, progress: Progress, sha256: str) -> str | None:
    failed = True
    try:
        if not store.place(sha256).exists():
            return "isn't in the store"
        failed = not store.verify(sha256, progress, sha256)
        return f"its content changed (sha256 was {sha256})" if failed else None
    except OSError as error:
        return f"can't be read ({error.strerror})"
    finally:
        progress.end(sha256, failed=failed)
