"""Python environments, made and filled by uv."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from tasks.host import process


def binary() -> Path:
    """The uv that was installed with this project. Raises FileNotFoundError."""
    from uv import find_uv_bin

    return Path(find_uv_bin())


def environment() -> dict[str, str]:
    """What uv and its builds may see; it never downloads an interpreter (from GitHub)."""
    return process.allowed_environment(os.environ, installer=True) | {
        "UV_PYTHON_DOWNLOADS": "never",
        "UV_NO_PROGRESS": "1",
        "NO_COLOR": "1",
    }


def make_environment(folder: Path, python: str, log: Path) -> None:
    """Make `folder` a relocatable virtual environment of the interpreter `python`."""
    argv = [binary(), "venv", "--relocatable", "--no-project", "--python", python, folder]
    process.run(argv, env=environment(), log=log)


def install(folder: Path, arguments: Sequence[str | Path], log: Path) -> str:
    """Resolve and install into `folder` exactly what `arguments` ask for; the rest goes.

    Returns what uv printed. Raises CommandFailed with uv's explanation as its output.
    """
    argv = [binary(), "pip", "install", "--exact", "--python", folder / "bin" / "python"]
    return process.run([*argv, *arguments], env=environment(), log=log)


def site_packages(folder: Path) -> Path:
    """The environment's site-packages. Raises FileNotFoundError if it has none."""
    for path in sorted((folder / "lib").glob("python3.*/site-packages")):
        return path
    raise FileNotFoundError(folder / "lib" / "python3.*" / "site-packages")
