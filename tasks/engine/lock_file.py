"""Writing machine.lock: each stage replaces its own sections and keeps the others."""

from __future__ import annotations

import threading
from typing import Any

from ..host.system import files
from ..spec.lock_format import read_lock
from .run import Run

_one_writer = threading.Lock()


def write(run: Run, **sections: Any) -> bool:
    """Replace sections of the file; return whether it changed.

    Warns when the file can't be written.
    """
    # The file may be a link.
    file = run.machine.lock_file.resolve()
    with _one_writer:
        before = read_lock(file, file.name)
        lock = before.model_copy(update=sections)
        if lock == before and file.exists():
            return False
        try:
            mode = file.stat().st_mode & 0o777 if file.exists() else 0o644
            files.write_text(file, lock.text(), mode=mode)
        except OSError as error:
            run.warn(
                f"{run.machine.lock_file} can't be written ({error.strerror}): the result is "
                f"only in {run.layout.receipts}"
            )
    return True


def digest(run: Run, *sections: str) -> str | None:
    """A digest of these sections of the file; None without a file."""
    file = run.machine.lock_file
    if not file.exists():
        return None
    content = files.read_receipt(file)
    return files.digest({name: content.get(name) for name in sections})
