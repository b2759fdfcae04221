"""The project as a clone of it is, to build an image of."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.rig import PROJECT

MACHINE = "machine"
"""The folder of the machine's files in it: what MACHINE_FILES has to name."""


def make_context(folder: Path) -> Path:
    """A copy of what git knows of the project, with what nobody has committed yet."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.check_output(listed, cwd=PROJECT, text=True).split("\0"):
        if (PROJECT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(PROJECT / name, folder / name)
    (folder / MACHINE).mkdir()
    return folder
