"""Writing machine.lock: each stage replaces its sections and leaves the others as they are."""

from __future__ import annotations

import threading
from typing import Any

from ..host.system import files
from ..spec.lock_format import read_lock
from .run import Run

_one_writer = threading.Lock()


def write(run: Run, **sections: Any) -> bool:
    """Replace sections of the file; whether it changed. It says so when it can't be written."""
    # The file may be a link to one that is kept elsewhere.
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
                f"{run.machine.lock_file} can't be written ({error.strerror}): what was resolved "
                f"is kept in {run.layout.receipts} only"
            )
    return True


def digest(run: Run, *sections: str) -> str | None:
    """A short name for what the file says in these sections, None without a file."""
    file = run.machine.lock_file
    if not file.exists():
        return None
    content = files.read_receipt(file)
    return files.digest({name: content.get(name) for name in sections})
