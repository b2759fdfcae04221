"""What a machine in an image does with its volumes: an empty one, or one of another image.

In an image the folders of `.machine` that a run writes are links into `.machine/state`, the one
volume of the machine, beside the models and outputs; all else may be read-only. Receipts say
what was built, so they come from the image, and again from each other image that follows.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from ...spec.layout import Layout
from ..downloads.model_files import receipt_of
from ..system import files, locks

RECEIPTS = "image"
"""The folder of `.machine` in which an image has its receipts."""


def is_here(layout: Layout) -> bool:
    """Whether the machine came in an image."""
    return (layout.machine / RECEIPTS).is_dir()


def claim(layout: Layout) -> bool:
    """Take the volume for as long as this process lives; False: another has it. Raises OSError.

    Each container has a run lock of its own, so two would restart and roll back each other's.
    """
    layout.state.mkdir(parents=True, exist_ok=True)
    return locks.claim(layout.state / "container.lock") is not None


def settle(layout: Layout) -> None:
    """Make the volume ready for this image; nothing is done where there is none. Raises OSError."""
    for link in layout.machine.iterdir() if layout.machine.is_dir() else ():
        if link.is_symlink() and not link.exists():
            link.resolve().mkdir(parents=True, exist_ok=True)
    brought = layout.machine / RECEIPTS
    if not is_here(layout):
        return
    mark, names = layout.state / "image", sorted(files.walk(brought))
    built = files.tree_digest(brought, names)
    if mark.is_file() and mark.read_text() == built:
        return
    for name in names:
        if not _stays(layout, layout.receipts / name):
            (layout.receipts / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(brought / name, layout.receipts / name)
    files.write_text(mark, built)


def _stays(layout: Layout, receipt: Path) -> bool:
    """What is known of the models on a volume outlives the image."""
    return receipt == receipt_of(layout) and receipt.exists()
