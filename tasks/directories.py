"""Shared folders, writable, and the link to the models folder."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from .engine.run import Run
from .engine.step import Task, step
from .host.comfyui import user_files
from .host.generations import image_volumes
from .host.storage import access
from .host.system import files
from .host.system.failure import Failure
from .host.system.program_files import PROGRAM
from .models import placement
from .spec.layout import Layout


def tasks(run: Run) -> Iterator[Task]:
    instances = run.instances
    layout = run.layout
    folders = [
        run.machine.workspace,
        *(getattr(layout, name) for name in ("machine", "receipts", "logs", "state")),
        layout.inputs,
        *(layout.outputs(instance.gpu) for instance in instances),
        *_user_folders(run),
    ]
    yield step(
        run,
        "directories",
        "Shared folders: created and writable",
        check=partial(_why_unusable, run, folders),
        action=partial(_create, run, folders),
    )


def _why_unusable(run: Run, folders: list[Path]) -> str | None:
    layout, models = run.layout, run.machine.models.folder
    _refuse_read_only(run)
    if missing := user_files.without(run.machine.instances.user, _user_folders(run)):
        return f"{missing[0]} doesn't have its first settings yet"
    for folder in folders:
        if not folder.is_dir() or not _is_writable(folder, layout):
            return f"{folder} is missing or not writable"
    if not models.is_dir():
        return f"{models} is missing"
    if temporary := _in_the_way(run):
        return f"{temporary[0]} is no folder"
    if files.link_target(layout.models) != _models_target(models, layout):
        return f"{layout.models} doesn't point at {models}"
    return None


def _create(run: Run, folders: list[Path], log: Path) -> None:
    layout, models = run.layout, run.machine.models.folder
    _refuse_read_only(run)
    for folder in [*folders, models]:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            advice = (
                f"{PROGRAM} repair" if folder.is_relative_to(layout.machine) else "move it away"
            )
            if folder.is_symlink():
                raise Failure(f"{folder} is a broken link: mount its target, or {advice}") from None
            raise Failure(f"{folder} is a file, not a folder: {advice}") from None
        except OSError as error:
            raise Failure(
                f"{folder} can't be created ({error.strerror}): {_hint(folder, layout)}"
            ) from error
        # A models folder may be a read-only volume.
        if folder != models and not _is_writable(folder, layout):
            raise Failure(f"{folder} isn't writable: {_hint(folder, layout)}")
    for path in _in_the_way(run):
        files.remove(path)
    user_files.provide(run.machine.instances.user, _user_folders(run))
    files.point(layout.models, _models_target(models, layout), access.ADVICE)


def _user_folders(run: Run) -> list[Path]:
    return [run.layout.instance(instance.gpu) / "user" for instance in run.instances]


def _in_the_way(run: Run) -> list[Path]:
    """What lies where an instance makes its folders for temporary files and databases."""
    temps = (run.layout.instance(instance.gpu) / "temp" for instance in run.instances)
    databases = (run.layout.databases(instance.gpu) for instance in run.instances)
    return [
        *(path for path in temps if os.path.lexists(path) and not path.is_dir()),
        *(path for path in databases if access.is_no_folder(path)),
    ]


def _refuse_read_only(run: Run) -> None:
    """Raises Failure when a folder that the machine writes to lies in a read_only root."""
    models = run.machine.models
    for what, path in (
        ("workspace", run.machine.workspace),
        ("models.folder", models.folder),
        ("models.store", models.store),
    ):
        if path:
            placement.refuse_read_only(run, what, path)


def _is_writable(folder: Path, layout: Layout) -> bool:
    """Whether a folder is writable. An image's workspace and .machine may be read-only."""
    if os.access(folder, os.W_OK | os.X_OK):
        return True
    own = folder in (layout.workspace, layout.machine)
    read_only = bool(os.statvfs(folder).f_flag & os.ST_RDONLY)
    return own and (read_only or image_volumes.is_here(layout))


def _models_target(models: Path, layout: Layout) -> str:
    """The link's text; relative inside the workspace, so that the workspace can be moved."""
    if models.is_relative_to(layout.workspace):
        return os.path.relpath(models, layout.state)
    return str(models)


def _hint(folder: Path, layout: Layout) -> str:
    existing = next(path for path in (folder, *folder.parents) if _is_there(path))
    status = existing.stat()
    if status.st_uid == os.geteuid() and existing.is_relative_to(layout.machine):
        return f"run: {PROGRAM} repair"
    try:
        owner = pwd.getpwuid(status.st_uid).pw_name
    except KeyError:
        owner = str(status.st_uid)
    return (
        f"{existing} belongs to {owner} (mode {status.st_mode & 0o7777:04o}), this is uid "
        f"{os.getuid()}; run: sudo chown -R {os.getuid()}:{os.getgid()} {existing}"
    )


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return False
