"""Where this program is: its package and what lies beside it, in a clone or installed as a wheel.

In a clone the package is `tasks`, and `comfy_machine` is a link to it. What runs names files by
their real path, so that the same code isn't taken for another.
"""

from __future__ import annotations

import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2]
SERVICES = PACKAGE / "services"
IN_CLONE = PACKAGE.name == "tasks" and (PACKAGE.parent / "pyproject.toml").exists()
TOP = PACKAGE.parent if IN_CLONE else PACKAGE
"""The folder with dodo.py, pyproject.toml and templates."""
PYPROJECT = TOP / "pyproject.toml"
SIMULATOR = TOP / ("examples/simulation/comfyui" if IN_CLONE else "simulator")
"""A ComfyUI for machines without a GPU, to try this program and to test it."""
NAME = "comfy-machine"
PROGRAM = "doit" if IN_CLONE and Path(sys.argv[0]).name != NAME else NAME
"""What a person types, as messages name it: doit works only where there is a dodo.py."""


def program_file() -> Path:
    """The program of this installation that starts and stops the machine."""
    import sysconfig

    # Not always beside Python: Debian's own has them in /usr/local.
    return Path(sysconfig.get_path("scripts")) / PROGRAM


def why_unusable() -> str | None:
    """Why this installation can't run a machine; None: it can."""
    import site

    if not site.ENABLE_USER_SITE or not PACKAGE.is_relative_to(site.getusersitepackages()):
        return None
    # Services start Python with -I, so that no variable or folder of anybody's changes them.
    return (
        f"{NAME} is among the packages of a user (pip install --user), which services don't see: "
        f"install it by uv tool install, pipx, or pip in a virtual environment"
    )
