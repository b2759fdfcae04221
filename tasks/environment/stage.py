"""The Python environment: what the lock lists, for ComfyUI and every custom node."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from .. import nodes
from ..engine import space
from ..engine.messages import describe_move
from ..engine.run import Run
from ..engine.step import Task, step
from ..host.generations import reported_changes
from ..host.generations.kept_generations import of_generations
from ..host.pm2 import apps
from ..host.python import altered_files, constraints, environments, pth_hook, records, uv
from ..host.python.environments import damage, fits
from ..host.storage import digest_folders, disk
from ..host.system import files
from ..host.system.failure import Failure
from ..host.system.units import size
from ..lock import packages, preinstalled
from ..spec.layout import Layout
from . import installation, script_records, torch_trial
from .script_records import Records

INSTALL_SCRIPT = "install.py"


def tasks(run: Run) -> Iterator[Task]:
    layout = run.layout
    yield step(
        run,
        "environment",
        "The Python environment, one install for ComfyUI and all custom nodes",
        check=partial(_why_outdated, run),
        action=partial(_make_with_space, run),
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


def script_versions(run: Run) -> dict[str, str]:
    """Node with an install script → the script's version."""
    found = {}
    for node in nodes.present_nodes(run):
        script = nodes.folder_of(run, node) / INSTALL_SCRIPT
        if node.script or script.is_file():
            commit = nodes.source_of(run, node).read().get("commit")
            found[node.name] = str(commit or files.file_digest(script)) + (node.script or "")
    return found


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
    there = environments.installed(folder)
    guests = sorted(set(there) - ours - set(besides))
    receipt["guests"] = {name: there[name] for name in guests}
    known = beside if grown else receipt.get("top", beside)
    receipt["top"] = [name for name in beside if name in known]
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
    if files.read_receipt(layout.read_path(_pointer(layout))).get("digest") != _digest(run):
        return "its packages or its nodes' scripts changed"
    beside = digest_folders.read(folder)
    if not beside:
        return f"{folder.name} isn't complete"
    # A process of the current generation would remove these again.
    own = reported_changes.read(layout.current.resolve()).gone
    for key in ("installed", "top"):
        beside[key] = [name for name in beside.get(key, ()) if name not in own]
    return damage(folder, beside) or torch_trial.reason_to_import(beside)


def _digest(run: Run) -> str:
    python = packages.required(run)
    return files.digest(
        {
            "interpreter": sys.version,
            "packages": {name: p.requirement(name) for name, p in python.packages.items()},
            "preinstalled": preinstalled.versions(run),
            "scripts": script_versions(run),
            "hook": pth_hook.LINE,
            # Older environments share their files with uv's cache.
            "own": True,
        }
    )


def _choose(run: Run) -> tuple[str, Path, bool]:
    """The digest, its folder, and whether that is complete."""
    layout = run.layout
    digest = _digest(run)
    in_use = of_generations(digest_folders.list_folders(layout.generations))
    return digest, *digest_folders.choose(layout.environments, digest, damage, in_use)


def _make_with_space(run: Run, log: Path) -> None:
    _, folder, complete = _choose(run)
    need = 0 if complete else _space_needed(run)
    with space.reserve(run, "the environment", folder, need):
        _make(run, log)


def _space_needed(run: Run) -> int:
    """Bytes: the files that the previous one shares with none, plus new packages, if known."""
    try:
        before = folder_of(run)
        there, own = environments.installed(before), disk.last_measured(run.layout).environments
    except (Failure, OSError):
        there, own, before = {}, {}, Path()
    wanted = packages.required(run).packages
    new = (each for name, each in wanted.items() if not fits(each, there.get(name)))
    return own.get(before.name, 0) + sum(each.size or 0 for each in new)


def _make(run: Run, log: Path) -> None:
    layout = run.layout
    digest, folder, complete = _choose(run)
    if not complete:
        digest_folders.remove(folder)
        _report_dropped(run)
        previous, see_base = _base_environment(run), preinstalled.is_chosen(run)
        valid = _valid_records(run, previous)
        if previous:
            environments.grow(previous, folder)
        else:
            folder.parent.mkdir(parents=True, exist_ok=True)
            python = preinstalled.base_python() if see_base else Path(sys.executable)
            uv.make_environment(folder, python, log, see_base=see_base)
        installation.install(
            run, folder, script_records.added_packages(valid), _altered(previous), log
        )
        pth_hook.write(uv.site_packages(folder))
        inherited = (
            torch_trial.inherited_result(previous, folder) if previous and not see_base else {}
        )
        locked = sorted(packages.required(run).packages)
        constraints.write(folder, locked, preinstalled.versions(run))
        record(
            folder,
            digest=digest,
            own=True,
            locked=locked,
            scripts=valid,
            pending=_pending(run, valid),
            sees_base=see_base,
            **inherited,
        )
        if previous and previous.name.partition(".")[0] == digest:
            altered_files.expect(
                folder, altered_files.known(previous), altered_files.spoilt(previous)
            )
    if torch_trial.reason_to_import(digest_folders.read(folder)):
        family = torch_trial.import_family(run, folder, log)
        digest_folders.finish(folder, digest_folders.read(folder) | {"family": family})
    digest_folders.point(_pointer(layout), folder, digest)


def _preview(run: Run, log: Path) -> list[str]:
    layout = run.layout
    digest, folder, complete = _choose(run)
    lines = _difference(run)
    if not complete:
        previewed = layout.write_path(folder)
        previewed.mkdir(parents=True)
        pending = _pending(run, _valid_records(run, _base_environment(run)))
        digest_folders.finish(previewed, {"digest": digest, "pending": pending})
    elif torch_trial.reason_to_import(digest_folders.read(folder)):
        lines.append("import the torch family, once")
    digest_folders.point(layout.write_path(_pointer(layout)), folder, digest)
    return lines


def _difference(run: Run) -> list[str]:
    """One line for each package that differs from the current environment."""
    wanted = packages.required(run).packages
    try:
        there = environments.installed((run.layout.current / "environment").resolve())
    except OSError:
        there = {}
    lines = []
    for name in sorted({*there, *wanted}):
        package = wanted.get(name)
        if package is None:
            lines.append(describe_move(name, there[name], None))
        elif not fits(package, there.get(name)):
            much = f" ({size(package.size)})" if package.size else ""
            lines.append(describe_move(name, there.get(name), package.shown) + much)
    return lines


def _report_dropped(run: Run) -> None:
    """Say which packages that were installed by hand the new environment doesn't have."""
    current = run.layout.current.resolve()
    wanted, own = packages.required(run).packages, reported_changes.read(current).packages
    for name, version in environments.additions((current / "environment").resolve()).items():
        if name not in own and name not in wanted:
            run.tell(f"{name} {version}, installed by hand, isn't in the new environment")


def _base_environment(run: Run) -> Path | None:
    """The environment to copy and change; None when none is suitable.

    Files that `doit verify` found damaged don't matter: they are installed again.
    """
    try:
        previous = folder_of(run)
    except Failure:
        return None
    receipt = digest_folders.read(previous)
    same_python = (previous / "bin" / "python").resolve() == Path(sys.executable).resolve()
    if (
        not receipt
        or not same_python
        or digest_folders.damaged(previous, receipt, environments.lost)
    ):
        return None
    if receipt.get("sees_base", False) != preinstalled.is_chosen(run):
        return None
    return previous if environments.is_removable(previous) else None


def _valid_records(run: Run, previous: Path | None) -> Records:
    """The records of scripts that need not run again in a copy of this environment."""
    if previous is None:
        return {}
    recorded, there = script_records.read_records(previous), environments.installed(previous)
    return script_records.valid_records(
        recorded, script_versions(run), packages.required(run).packages, there
    )


def _pending(run: Run, valid: Records) -> list[str]:
    return sorted(set(script_versions(run)) - set(valid))


def _altered(previous: Path | None) -> dict[str, list[str]]:
    """Package → its files that aren't as installed."""
    found = altered_files.spoilt(previous) if previous else {}
    for path, each in altered_files.known(previous).items() if previous else ():
        found.setdefault(each.package, []).append(path)
    return found
