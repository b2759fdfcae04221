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


def link_to_store(run: Run, target: str, sha256: str) -> str:
    """What the link of a download says."""
    models = run.machine.models
    return model_files.link_text(str(models.folder), str(models.store), target, sha256)


def link(run: Run, target: str, text: str) -> None:
    """Make the link, or make it right. Raises Failure, OSError; a real file is never replaced."""
    refuse_links_in_path(run, target)
    try:
        files.point(place(run, target), text)
    except (FileExistsError, NotADirectoryError):
        raise Failure(f"{target}: a folder of it is a file: move that away") from None
    except OSError as error:
        raise Failure(f"{target} can't be linked ({error.strerror}): see that "
                      f"{run.machine.models.folder} is writable") from None  # fmt: skip


def refuse_links_in_path(run: Run, target: str) -> None:
    """Raise Failure when a folder of the target is a link: who knows what lies behind it."""
    folder = Path(os.path.realpath(run.machine.models.folder))
    parent = folder / Path(target).parent
    if (real := Path(os.path.realpath(parent))) != parent:
        raise Failure(
            f"{target} leaves the models folder through a link, to {real}: remove that link, and "
            "name the folder in models.extra_roots or models.store"
        )


def file_in_the_way(run: Run, target: str) -> Path | None:
    """A real file where the link belongs. Raises Failure for a folder."""
    at = place(run, target)
    if at.is_symlink() or not os.path.lexists(at):
        return None
    if not at.is_file():
        raise Failure(f"{at} is in the way: move it aside, a link belongs there")
    return at
