"""Links below the models folder, made atomically and never through other links."""

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
    """The text of a download's link."""
    models = run.machine.models
    return model_files.link_text(str(models.folder), str(models.store), target, sha256)


def link(run: Run, target: str, text: str) -> None:
    """Create or correct the link; never replace a real file. Raises Failure, OSError."""
    refuse_links_in_path(run, target)
    try:
        files.point(place(run, target), text)
    except (FileExistsError, NotADirectoryError):
        raise Failure(f"{target}: a folder in its path is a file: move it away") from None
    except OSError as error:
        raise Failure(f"{target} can't be linked ({error.strerror}): make "
                      f"{run.machine.models.folder} writable") from None  # fmt: skip


def refuse_links_in_path(run: Run, target: str) -> None:
    """Raises Failure when a folder in the target's path is a link or lies in a read_only root."""
    folder = Path(os.path.realpath(run.machine.models.folder))
    parent = folder / Path(target).parent
    if (real := Path(os.path.realpath(parent))) != parent:
        raise Failure(
            f"{target} leaves the models folder through a link, to {real}: remove that link, and "
            "name the folder in models.extra_roots or models.store"
        )
    refuse_read_only(run, target, parent)


def file_in_the_way(run: Run, target: str) -> Path | None:
    """The real file at the link's place, if any. Raises Failure for a folder."""
    at = place(run, target)
    if at.is_symlink() or not os.path.lexists(at):
        return None
    if not at.is_file():
        raise Failure(f"{at} is in the way of a link: move it aside")
    return at
