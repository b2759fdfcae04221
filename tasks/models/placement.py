"""Places below the models folder: links are made in one step, and never through other links."""

from __future__ import annotations

import os
from pathlib import Path

from ..engine.run import Run
from ..host.downloads import model_files
from ..host.system import files
from ..host.system.failure import Failure


def place(run: Run, target: str) -> Path:
    return run.machine.models.folder / target


def read_only_root(run: Run, path: Path) -> Path | None:
    """The further root with `read_only` that `path` lies in, through links too."""
    real = Path(os.path.realpath(path))
    for root in run.machine.models.extra_roots:
        if root.read_only and real.is_relative_to(os.path.realpath(root.path)):
            return root.path
    return None


def refuse_read_only(run: Run, what: str, folder: Path) -> None:
    """Raise Failure when `folder`, in which `what` changes, lies in a root that is read_only."""
    if root := read_only_root(run, folder):
        raise Failure(
            f"{what} would change {root}, which is read_only in models.extra_roots: "
            "name another folder, or remove read_only"
        )


def link_to_store(run: Run, target: str, sha256: str) -> str:
    """What the link of a download says."""
    models = run.machine.models
    return model_files.link_text(str(models.folder), str(models.store), target, sha256)


def link(run: Run, target: str, text: str) -> None:
    """Make the link, or make it right. Raises Failure, OSError; a real file is never replaced."""
    refuse_climbing(run, target)
    try:
        files.point(place(run, target), text)
    except (FileExistsError, NotADirectoryError):
        raise Failure(f"{target}: a folder of it is a file: move that away") from None
    except OSError as error:
        raise Failure(f"{target} can't be linked ({error.strerror}): see that "
                      f"{run.machine.models.folder} is writable") from None  # fmt: skip


def refuse_climbing(run: Run, target: str) -> None:
    """Raise Failure when a folder of the target is a link, since what lies behind it isn't known,
    or is a root that is read_only."""
    folder = Path(os.path.realpath(run.machine.models.folder))
    parent = folder / Path(target).parent
    if (real := Path(os.path.realpath(parent))) != parent:
        raise Failure(
            f"{target} leaves the models folder through a link, to {real}: remove that link, and "
            "name the folder in models.extra_roots or models.store"
        )
    refuse_read_only(run, target, parent)


def in_the_way(run: Run, target: str) -> Path | None:
    """A real file where the link belongs. Raises Failure for a folder."""
    at = place(run, target)
    if at.is_symlink() or not os.path.lexists(at):
        return None
    if not at.is_file():
        raise Failure(f"{at} is in the way: move it aside, a link belongs there")
    return at
