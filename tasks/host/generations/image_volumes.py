"""Prepares the volumes of a machine in an image: empty ones, or ones of another image.

In an image, the folders of `.machine` that a run writes are links into `.machine/state`, which is a
volume, as are the models and outputs; everything else may be read-only. Receipts describe what was
built, so each new image replaces them with its own.
"""

from __future__ import annotations

import shutil

from ...spec.layout import Layout
from ..downloads.model_files import receipt_of
from ..system import files, locks

RECEIPTS = "image"
"""The folder of `.machine` with an image's receipts."""


def is_here(layout: Layout) -> bool:
    """Whether the machine is part of an image."""
    return (layout.machine / RECEIPTS).is_dir()


def claim(layout: Layout) -> bool:
    """Lock the volume until this process ends; False if another has it. Raises OSError.

    Containers don't share the run lock, so two on one volume would disturb each other.
    """
    layout.state.mkdir(parents=True, exist_ok=True)
    return locks.claim(layout.state / "container.lock") is not None


def settle(layout: Layout) -> None:
    """Prepare the volume for this image; does nothing outside of an image. Raises OSError."""
    for link in layout.machine.iterdir() if layout.machine.is_dir() else ():
        if link.is_symlink() and not link.exists():
            link.resolve().mkdir(parents=True, exist_ok=True)
    source = layout.machine / RECEIPTS
    if not is_here(layout):
        return
    mark, names = layout.state / "image", sorted(files.walk(source))
    digest = files.tree_digest(source, names)
    if mark.is_file() and mark.read_text() == digest:
        return
    for target in (layout.receipts / name for name in names):
        # The models are on a volume, so their receipt stays.
        if target != receipt_of(layout) or not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / target.relative_to(layout.receipts), target)
    files.write_text(mark, digest)
