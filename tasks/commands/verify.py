"""doit verify: hash everything again that was downloaded or installed, report what is damaged, and
repair models and environments with --fetch."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

from doit.exceptions import InvalidCommand

from ..engine.configuration import load_run
from ..engine.run import Run
from ..engine.run_command import RunCommand
from ..engine.step import of_file
from ..environment import stage as environment
from ..environment import verification
from ..generation import inspection
from ..host.downloads.store import Store
from ..host.python import altered_files, bytecode
from ..host.system import thread_pool
from ..host.system.failure import Failure
from ..host.system.program_files import PROGRAM
from ..host.system.progress import Progress
from ..host.system.run_lock import Taken
from ..host.system.units import duration, size
from ..links import stage as links
from ..models import model_pins
from ..models import stage as models
from .shared.command import locked, option


class Verify(RunCommand):
    doc_purpose = "hash every model, package and checkout again; report damaged files"
    doc_usage = ""
    doc_description = (
        f"--fetch, or the next {PROGRAM}, fetches damaged files again. An environment that "
        f"instances run from is left to {PROGRAM}, which makes a new one and moves the instances "
        "over. Exit code 1 when something is damaged or missing and was not repaired."
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
        try:
            return self._verify(run, params)
        except OSError as error:
            print(f"verify: {of_file(run, error)}", file=sys.stderr)
            return 1

    def _verify(self, run: Run, params: Any) -> Any:
        rest_damaged = _verify_rest(run)
        environments_damaged = _verify_environments(run, repair=params["fetch"]) or rest_damaged
        damaged, replaced = _verify_models(run)
        if damaged and params["fetch"]:
            code = super().execute(params, ["models"])
            return code or int(bool(replaced) or environments_damaged)
        if damaged:
            print(f"{PROGRAM} verify --fetch, or the next {PROGRAM}, fetches them again")
        return int(bool(damaged or replaced) or environments_damaged)


def _verify_rest(run: Run) -> bool:
    """Whether a source, a generation or PM2's package is damaged."""
    with run.working("verify", "reads sources, generations and bytecode"):
        found = list(inspection.find(run.layout))
        damaged = bytecode.damaged([run.layout.environments, run.layout.generations])
    for each in found:
        print(f"✗ {each.path}: {each.damage}")
    for path in damaged:
        print(f"✗ {path} can't be loaded")
    if found or damaged:
        print(f"{PROGRAM} repair removes what is damaged and doesn't run; {PROGRAM} makes it again")
    return bool(found or damaged)


def _verify_environments(run: Run, *, repair: bool) -> bool:
    """Whether an environment is damaged and was not repaired."""
    folders = verification.whole_environments(run)
    if not folders:
        return False
    progress = Progress("verify")
    with run.board.following(progress):
        checked = verification.check(folders, progress)
    for each in checked:
        altered_files.note_spoilt(each.folder, each.spoilt)
        if each.lost:
            print(f"✗ {each.folder}: {each.lost}")
        for file in each.spoilt:
            what = "is missing" if file.gone else "isn't what was installed"
            print(f"✗ {file.path} of {file.package} {what} (environment {each.folder.name})")
        for path, written in each.rewritten.items():
            print(
                f"! {path} of {written.package} isn't what was installed (environment "
                f"{each.folder.name}): {written.who} wrote into it, and will do so again"
            )
    total, damaged = sum(each.files for each in checked), sum(len(each.spoilt) for each in checked)
    where = f" of {len(checked)} Python environment{'' if len(checked) == 1 else 's'}"
    _print_total(total - damaged, total, where, progress)
    left = [_stays_damaged(run, each, repair=repair) for each in checked if each.damaged]
    return any(left)


def _stays_damaged(run: Run, checked: verification.CheckedEnvironment, *, repair: bool) -> bool:
    name = checked.folder.name
    if name in environment.in_use(run):
        print(f"instances run from {name}: {PROGRAM} makes a new one and moves them over")
        return True
    if checked.lost:
        print(f"{PROGRAM} repair removes {name}")
        return True
    if not repair:
        print(f"{PROGRAM} verify --fetch repairs {name}; {PROGRAM} repair removes it")
        return True
    try:
        with locked(run, "verify"):
            verification.repair(run, checked, run.layout.log("verify"))
    except (Failure, Taken) as error:
        print(f"{name} is not repaired, {PROGRAM} repair removes it: {error}")
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
    never_fetched = targets.pop("", [])
    sources = {str(file.source): file for file in links.pinned_sources(run)}
    progress = Progress("verify")
    for name in [*targets, *sources]:
        at = store.place(name) if name in targets else Path(name)
        progress.add(name, at.stat().st_size if at.exists() else 0)
    with run.board.following(progress):
        stored = thread_pool.each(
            partial(_store_problem, store, progress), targets, verification.READERS
        )
        linked = thread_pool.each(
            partial(links.verify_source, run, progress), sources.values(), verification.READERS
        )
    damaged, replaced = [], []
    for sha256, why in stored:
        if why:
            print(f"✗ {', '.join(targets[sha256])}: {why}")
            damaged += targets[sha256]
    for target in never_fetched:
        print(f"✗ {target}: was never fetched")
    for file, why in linked:
        if why:
            print(f"✗ {file.target}: {file.source} {why}: replace it, or correct sha256")
            replaced.append(file.target)
    intact = sum(why is None for _, why in [*stored, *linked])
    _print_total(intact, len(stored) + len(linked) + len(never_fetched), "", progress)
    return [*damaged, *never_fetched], replaced


def _print_total(intact: int, total: int, where: str, progress: Progress) -> None:
    shot = progress.snapshot()
    seconds, read = shot["seconds"], shot["bytes_done"]
    rate = f" ({size(read / seconds)}/s)" if seconds >= 1 else ""
    print(
        f"{intact} of {total} files{where} are intact: {size(read)} read in "
        f"{duration(seconds)}{rate}"
    )


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
