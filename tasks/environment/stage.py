"""The Python environment: what the lock lists, for ComfyUI and every custom node."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ..engine import space
from ..engine.messages import describe_move
from ..engine.run import Run
from ..engine.step import Task, step
from ..host.generations import reported_changes
from ..host.generations.kept_generations import of_generations
from ..host.pm2 import apps
from ..host.python import altered_files, constraints, environments, pth_hook, records, uv
from ..host.python.environments import damage, fits
from ..host.storage import digest_folders, disk, disk_space
from ..host.system import files, process
from ..host.system.failure import Failure
from ..host.system.units import size
from ..lock import preinstalled
from ..spec.layout import Layout
from . import installation, script_records, torch_trial
from .script_records import Records
from .target import Target, target_of


def tasks(run: Run) -> Iterator[Task]:
    layout = run.layout
    yield step(
        run,
        "environment",
        "The Python environment, one install for ComfyUI and all custom nodes",
        check=partial(_why_outdated, run),
        action=partial(_make, run),
        preview=partial(_preview, run),
        after=["lock"],
        garbage=partial(_garbage, layout),
    )


def folder_of(run: Run) -> Path:
    """The environment that the last `environment` step made or chose.

    Raises Failure without one.
    """
    layout = run.layout
    return layout.read_path(
        digest_folders.pointed(layout.read_path(_pointer(layout)), layout.environments)
    )


def record(
    folder: Path, *, grown: bool = False, besides: Collection[str] = (), **changes: Any
) -> None:
    """Record what belongs into the environment: what is there now.

    That is the locked packages and those that scripts added. Packages that custom nodes installed
    during their import are recorded as guests, which may disappear. `besides` are packages
    installed by hand, which are not recorded. With `grown`, new top-level names belong there too.
    """
    receipt = digest_folders.read(folder) | changes
    names = sorted(path.name for path in uv.site_packages(folder).iterdir())
    info = [name for name in names if name.endswith(".dist-info")]
    beside = [name for name in names if name not in info and name != files.BYTECODE]
    if "scripts" not in changes:
        receipt["scripts"] = script_records.read_records(folder)
    ours = {*receipt.get("locked", ()), *script_records.added_packages(receipt["scripts"])}
    receipt["installed"] = [name for name in info if records.name_of(name) in ours]
    installed = environments.installed(folder)
    guests = sorted(set(installed) - ours - set(besides))
    receipt["guests"] = {name: installed[name] for name in guests}
    recorded = beside if grown else receipt.get("top", beside)
    receipt["top"] = [name for name in beside if name in recorded]
    receipt["base"] = environments.base(folder)
    receipt["records"] = records.sizes(uv.site_packages(folder))
    digest_folders.finish(folder, receipt)


def in_use(run: Run) -> frozenset[str]:
    """The names of environments that a process on this machine runs from."""
    folder = run.layout.generations
    return of_generations(folder / name for name in apps.folders_in_use(folder))


def _garbage(layout: Layout) -> list[Path]:
    keep = of_generations(digest_folders.list_folders(layout.generations))
    return [
        path for path in digest_folders.list_folders(layout.environments) if path.name not in keep
    ]


def _pointer(layout: Layout) -> Path:
    return layout.receipts / "environment.json"


def _why_outdated(run: Run) -> str | None:
    layout = run.layout
    folder = folder_of(run)
    made = files.read_receipt(layout.read_path(_pointer(layout))).get("digest")
    if made != target_of(run).digest:
        return "its packages or its nodes' scripts changed"
    receipt = digest_folders.read(folder)
    if not receipt:
        return f"{folder.name} isn't complete"
    # A process of the current generation would remove these again.
    removed = reported_changes.read(layout.generation).gone
    for key in ("installed", "top"):
        receipt[key] = [name for name in receipt.get(key, ()) if name not in removed]
    return damage(folder, receipt) or torch_trial.reason_to_import(receipt)


def _choose(run: Run, target: Target) -> tuple[Path, bool]:
    """The folder for this target, and whether it is complete."""
    layout = run.layout
    used = of_generations(digest_folders.list_folders(layout.generations))
    return digest_folders.choose(layout.environments, target.digest, damage, used)


def _make(run: Run, log: Path) -> None:
    layout, target = run.layout, target_of(run)
    folder, complete = _choose(run, target)
    need = 0 if complete else _space_needed(run, target)
    with space.reserve(run, "the environment", folder, need):
        if not complete:
            _install(run, target, folder, log)
        receipt = digest_folders.read(folder)
        if torch_trial.reason_to_import(receipt):
            receipt["family"] = torch_trial.import_family(run, folder, log)
            digest_folders.finish(folder, receipt)
    digest_folders.point(_pointer(layout), folder, target.digest)


def _space_needed(run: Run, target: Target) -> int:
    """Bytes: the files that the previous one shares with none, plus new packages, if known."""
    try:
        previous = folder_of(run)
        installed = environments.installed(previous)
        unshared = disk.last_measured(run.layout).environments.get(previous.name, 0)
    except (Failure, OSError):
        installed, unshared = {}, 0
    new = (each for name, each in target.packages.items() if not fits(each, installed.get(name)))
    return unshared + sum(each.size or 0 for each in new)


def _install(run: Run, target: Target, folder: Path, log: Path) -> None:
    """Make the environment: a changed copy of the previous one, or a new one."""
    digest_folders.remove(folder)
    _report_dropped(run, target)
    previous = _base_environment(run, target)
    if previous and not _grow(run, previous, folder):
        previous = None
    valid = _valid_records(target, previous)
    altered = _altered(previous)
    if previous is None:
        folder.parent.mkdir(parents=True, exist_ok=True)
        python = preinstalled.base_python() if target.sees_base else Path(sys.executable)
        uv.make_environment(folder, python, log, see_base=target.sees_base)
    else:
        _clear_way(uv.site_packages(folder), altered)
    kept = script_records.added_packages(valid)
    installation.install(run, target.packages, folder, kept, altered, log)
    pth_hook.write(uv.site_packages(folder))
    inherited = (
        torch_trial.inherited_result(previous, folder) if previous and not target.sees_base else {}
    )
    locked = sorted(target.packages)
    constraints.write(folder, locked, target.preinstalled)
    record(
        folder,
        digest=target.digest,
        own=True,
        locked=locked,
        scripts=valid,
        pending=_pending(target, valid),
        sees_base=target.sees_base,
        **inherited,
    )
    if previous and previous.name.partition(".")[0] == target.digest:
        altered_files.expect(
            folder, altered_files.rewritten(previous), altered_files.spoilt(previous)
        )


def _grow(run: Run, previous: Path, folder: Path) -> bool:
    """Copy an environment; False if it can't be read."""
    try:
        environments.grow(previous, folder)
    except (OSError, process.CommandFailed) as error:
        files.remove(folder)
        if disk_space.free(folder.parent) == 0:
            raise
        run.warn(f"{previous} can't be copied ({error}), all packages are installed anew")
        return False
    return True


def _clear_way(site_packages: Path, altered: Mapping[str, Collection[str]]) -> None:
    """Remove what was copied although it lies in the place of a package's folder."""
    for path in (path for paths in altered.values() for path in paths):
        if found := files.in_the_way(site_packages / path, site_packages):
            files.remove(found)


def _preview(run: Run, log: Path) -> list[str]:
    layout, target = run.layout, target_of(run)
    folder, complete = _choose(run, target)
    lines = _difference(run, target)
    if not complete:
        previewed = layout.write_path(folder)
        previewed.mkdir(parents=True)
        pending = _pending(target, _valid_records(target, _base_environment(run, target)))
        digest_folders.finish(previewed, {"digest": target.digest, "pending": pending})
    elif torch_trial.reason_to_import(digest_folders.read(folder)):
        lines.append("import the torch family, once")
    digest_folders.point(layout.write_path(_pointer(layout)), folder, target.digest)
    return lines


def _difference(run: Run, target: Target) -> list[str]:
    """One line for each package that differs from the current environment."""
    try:
        installed = environments.installed(files.real(run.layout.current / "environment"))
    except OSError:
        installed = {}
    lines = []
    for name in sorted({*installed, *target.packages}):
        package = target.packages.get(name)
        if package is None:
            lines.append(describe_move(name, installed[name], None))
        elif not fits(package, installed.get(name)):
            download = f" ({size(package.size)})" if package.size else ""
            lines.append(describe_move(name, installed.get(name), package.shown) + download)
    return lines


def _report_dropped(run: Run, target: Target) -> None:
    """Say which packages that were installed by hand the new environment doesn't have."""
    current = run.layout.generation
    reported = reported_changes.read(current).packages
    for name, version in environments.additions(files.real(current / "environment")).items():
        if name not in reported and name not in target.packages:
            run.tell(f"{name} {version}, installed by hand, isn't in the new environment")


def _base_environment(run: Run, target: Target) -> Path | None:
    """The environment to copy and change; None when none is suitable.

    Files that `doit verify` found damaged don't matter: they are installed again.
    """
    try:
        previous = folder_of(run)
    except Failure:
        return None
    receipt = digest_folders.read(previous)
    same_python = files.real(previous / "bin" / "python") == files.real(Path(sys.executable))
    suitable = (
        receipt
        and same_python
        and not digest_folders.damaged(previous, receipt, environments.lost)
        and receipt.get("sees_base", False) == target.sees_base
        and environments.is_removable(previous)
        and not records.damaged(uv.site_packages(previous), environments.record_sizes(receipt))
    )
    return previous if suitable else None


def _valid_records(target: Target, previous: Path | None) -> Records:
    """The records of scripts that need not run again in a copy of this environment."""
    if previous is None:
        return {}
    return script_records.valid_records(
        script_records.read_records(previous),
        target.scripts,
        target.packages,
        environments.installed(previous),
    )


def _pending(target: Target, valid: Records) -> list[str]:
    return sorted(set(target.scripts) - set(valid))


def _altered(previous: Path | None) -> dict[str, list[str]]:
    """Package → its files that aren't as installed."""
    if previous is None:
        return {}
    altered = altered_files.spoilt(previous)
    locked = set(digest_folders.read(previous).get("locked", ()))
    truncated = records.of_other_size(uv.site_packages(previous), locked)
    for name, paths in altered_files.by_package(truncated).items():
        altered.setdefault(name, []).extend(paths)
    for path, each in altered_files.rewritten(previous).items():
        altered.setdefault(each.package, []).append(path)
    return altered
