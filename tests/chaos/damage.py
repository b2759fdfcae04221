"""What befalls a file or a folder."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

from comfy_machine.host.system import files

Damage = Callable[[Path, random.Random], None]


def deleted(path: Path, chance: random.Random) -> None:
    files.remove(path)


def emptied(path: Path, chance: random.Random) -> None:
    """What a power cut leaves of a file that was named before it was durable."""
    if path.is_dir() and not path.is_symlink():
        for inside in path.iterdir():
            files.remove(inside)
    else:
        files.remove(path)
        path.touch()


def truncated(path: Path, chance: random.Random) -> None:
    """Half of a file; half of what is in a folder."""
    if path.is_dir() and not path.is_symlink():
        inside = sorted(path.iterdir())
        for each in inside[: (len(inside) + 1) // 2]:
            files.remove(each)
    elif path.is_symlink():
        _replace(path, b"half")
    else:
        content = path.read_bytes()
        _replace(path, content[: len(content) // 2])


def rubbish(path: Path, chance: random.Random) -> None:
    """Other content of the same size; a file in a folder's place."""
    size = path.stat().st_size if path.is_file() else 64
    files.remove(path)
    path.write_bytes(chance.randbytes(size))


def a_folder(path: Path, chance: random.Random) -> None:
    """A folder with a file of somebody's."""
    files.remove(path)
    path.mkdir()
    (path / "note.txt").write_text("here")


def a_loop(path: Path, chance: random.Random) -> None:
    files.remove(path)
    path.symlink_to(path.name)


def closed(path: Path, chance: random.Random) -> None:
    """Mode 000; a link has none, its target isn't ours to change."""
    if not path.is_symlink():
        path.chmod(0)


ALL: dict[str, Damage] = {
    "deleted": deleted,
    "emptied": emptied,
    "truncated": truncated,
    "rubbish": rubbish,
    "a folder": a_folder,
    "a loop": a_loop,
    "mode 000": closed,
}


def _replace(path: Path, content: bytes) -> None:
    """Write another file of this name: hard links must not carry the damage elsewhere."""
    mode = path.stat().st_mode if path.exists() else 0o644
    files.remove(path)
    path.write_bytes(content)
    os.chmod(path, mode & 0o7777)  # noqa: PTH101
