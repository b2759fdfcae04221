"""What a machine has made, and what people keep in its workspace, for `doit uninstall`."""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from ...engine.run import Run
from ...host.generations import drift, manifest
from ...host.pm2 import pm2
from ...host.python import uv
from ...host.registry import node_archives
from ...host.repositories import git, git_cache
from ...host.storage import digest_folders, disk
from ...host.system import files, private_folder, systemd
from ...host.system.failure import Failure
from ...models import stage as models
from ...spec.layout import Layout

Kind = Literal["machine", "models", "outputs", "inputs", "user-data", "caches"]
KEPT: tuple[Kind, ...] = ("models", "outputs", "inputs", "user-data", "caches")
"""What stays unless the option of that name is given."""


@dataclass(frozen=True)
class Belonging:
    """A file or folder, and what it is for people."""

    kind: Kind
    path: Path
    says: str
    keep: tuple[Path, ...] = ()
    """What stays of it."""
    outside: bool = False
    """Whether it is elsewhere than in the workspace, where nothing is removed."""

    @property
    def size(self) -> int:
        """Its bytes, without what stays, and without what links lead to."""
        return disk.used(self.path, self.keep)

    @property
    def leads_to(self) -> str | None:
        """Where it leads, if it is a link."""
        return files.link_target(self.path)


def find(run: Run, asked: Collection[Kind]) -> list[Belonging]:
    """All that is there, in the order in which it is to be removed; `asked`: kinds that go."""
    people = [_without(each, run, asked) for each in _people(run)]
    found = [*people, *_caches(), *_links(run), *_machine(run, asked)]
    return [each for each in found if _has_more(each.path, each.keep)]


def _without(whole: Belonging, run: Run, asked: Collection[Kind]) -> Belonging:
    """A folder of models may hold other folders, up to the whole workspace."""
    others = [each.path for each in _people(run) if each.kind not in asked]
    inner = [path for path in (*others, run.layout.machine, run.machine.file)
             if path != whole.path and path.is_relative_to(whole.path)]  # fmt: skip
    return replace(whole, keep=tuple(inner))


def _people(run: Run) -> Iterator[Belonging]:
    layout, folder = run.layout, run.machine.models.folder
    store = models.store_of(run).folder
    yield _of_workspace(run, "models", folder, "models")
    if not store.is_relative_to(folder):
        yield _of_workspace(run, "models", store, "downloaded models")
    for root in run.machine.models.extra_roots:
        yield Belonging("models", root.path, "models of models.extra_roots", outside=True)
    yield _of_workspace(run, "outputs", layout.outputs(0).parent, "outputs")
    yield _of_workspace(run, "inputs", layout.inputs, "inputs")
    for path in _user_data(layout):
        yield _of_workspace(run, "user-data", path, "settings and workflows, or files of nodes")


def _user_data(layout: Layout) -> Iterator[Path]:
    instances = layout.instance(0).parent
    for pattern in ("gpu*/user", "gpu*/databases"):
        yield from (path for path in sorted(instances.glob(pattern)) if _holds_a_file(path))
    if _holds_a_file(layout.left):
        yield layout.left


def _holds_a_file(top: Path) -> bool:
    return any(names for _, _, names in os.walk(top))


def _of_workspace(run: Run, kind: Kind, path: Path, says: str) -> Belonging:
    return Belonging(kind, path, says, outside=not _is_inside(path, run.machine.workspace))


def _is_inside(path: Path, workspace: Path) -> bool:
    """Whether a path is in the workspace, with the links on the way to it followed."""
    return files.real(path.parent).is_relative_to(files.real(workspace)) and path != workspace


def _caches() -> Iterator[Belonging]:
    shared = "shared with your other programs"
    yield Belonging("caches", git_cache.folder(), "git's cache, for all your machines")
    yield Belonging("caches", node_archives.folder(), "custom nodes of the registry, the same")
    yield Belonging("caches", uv.cache_folder(), f"uv's cache, {shared}")
    yield Belonging("caches", pm2.npm_cache(), f"npm's cache, {shared}")


def _links(run: Run) -> Iterator[Belonging]:
    link = run.machine.comfyui.install_path
    target = os.path.join(link.parent, files.link_target(link) or "")  # noqa: PTH118
    ours = os.path.normpath(target) == str(run.layout.state / "current" / "ComfyUI")
    if ours:
        yield Belonging("machine", link, "the link to the current ComfyUI")


def _machine(run: Run, asked: Collection[Kind]) -> Iterator[Belonging]:
    layout = run.layout
    keep = () if "user-data" in asked else tuple(_user_data(layout))
    yield Belonging(
        "machine", layout.machine, "ComfyUI, nodes, packages, generations, state, logs", keep
    )
    yield Belonging("machine", private_folder.folder(layout.workspace), "sockets, the run lock")


def unit(run: Run) -> Path:
    """The systemd unit, which may not be there."""
    return systemd.manager().folder / systemd.unit_name(run.machine.file)


def edits(run: Run) -> Iterator[str]:
    """What people changed or added in checkouts, one line each; it goes with them."""
    layout = run.layout
    for folder in digest_folders.list_folders(layout.generations):
        try:
            edited = manifest.edited(folder)
        except Failure as failure:
            yield f"{folder}: unknown whether a file was edited: {failure}"
            continue
        yield from (f"{top}: edited: {', '.join(names)}" for top, names in edited.items())
    for checkout in digest_folders.list_folders(layout.sources):
        try:
            names = git.edited(checkout)
        except Failure:
            continue
        if names:
            yield f"{checkout}: edited: {', '.join(names)}"
    yield from drift.by_hand(layout.generation)


def remove(belonging: Belonging) -> None:
    """Remove it, but what stays. Killed in between, it can be repeated. Raises OSError."""
    top = belonging.path
    if belonging.kind == "machine" and top.is_dir() and not top.is_symlink():
        # What is half removed must not count as complete.
        for receipt in (*top.glob("*/*.json"), top / "state" / "current"):
            if not any(map(receipt.is_relative_to, belonging.keep)):
                files.remove(receipt)
    _remove(top, belonging.keep)


def _remove(top: Path, keep: Collection[Path]) -> None:
    if top in keep:
        return
    try:
        if not any(each.is_relative_to(top) for each in keep) or top.is_symlink():
            files.remove(top)
            return
    except OSError as error:
        if error.errno != errno.EBUSY or not top.is_dir():
            raise
    # Something is mounted here or below: a volume is emptied, and stays.
    for child in sorted(top.iterdir()):
        _remove(child, keep)
    if not any(top.iterdir()):
        try:
            top.rmdir()
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise


def _has_more(top: Path, keep: Collection[Path]) -> bool:
    """Whether there is anything but what stays, and the folders that it is in."""
    if top in keep or not os.path.lexists(top):
        return False
    if not any(each.is_relative_to(top) for each in keep) or top.is_symlink():
        return True
    return any(_has_more(child, keep) for child in top.iterdir())
