"""Install the locked packages into an environment that nothing runs from yet."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path

from ..engine.run import Run
from ..host.python import altered_files, environments, uv, uv_progress
from ..host.python.environments import fits
from ..host.python.uv_errors import gist, refused
from ..host.system import files, process
from ..host.system.failure import Failure
from ..host.system.program_files import PROGRAM
from ..lock import package_set, packages
from ..lock.resolver import NO_SOLUTION
from ..spec import Package


def install(
    run: Run,
    locked: Mapping[str, Package],
    folder: Path,
    keep: Collection[str],
    reinstall: altered_files.Spoilt,
    log: Path,
) -> None:
    """Install the locked packages, those to `reinstall` even if present; remove others but `keep`.

    Raises Failure.
    """
    installed = environments.installed(folder)
    listed = packages.requirements_file(run, locked)
    new = [name for name, package in locked.items() if not fits(package, installed.get(name))]
    on_progress = partial(run.progress, "environment")
    superfluous = sorted(set(installed) - set(locked) - set(keep))
    # A package that is removed needs no repair.
    reinstall = {name: paths for name, paths in reinstall.items() if name in locked}
    files.write_text(folder / environments.LIST, listed.read_text())
    try:
        with uv_progress.following(
            log, f"{len(new)} package{'' if len(new) == 1 else 's'}", on_progress
        ):
            if superfluous:
                uv.uninstall(folder, superfluous, log)
            where = packages.uv_sources(run)
            uv.install(folder, listed, *where, log, anew=reinstall)
            environments.heal(folder, listed, where, reinstall, log)
    except process.CommandFailed as failed:
        raise _not_installed(run, new, failed, log) from failed


def _not_installed(run: Run, new: list[str], failed: process.CommandFailed, log: Path) -> Failure:
    problem = "the locked packages can't be installed"
    if refusal := refused(failed.output):
        return Failure(f"{problem}: {refusal}", log)
    lines = package_set.why_not_installed(run, new, log) if failed.code == NO_SOLUTION else []
    if lines:
        return Failure("\n    ".join([f"{problem}: {lines[0]}", *lines[1:]]), log)
    advice = f"check that the package index is reachable, then run {PROGRAM} again"
    return Failure(f"{problem} ({gist(failed.output)}): {advice}", log)
