"""The private folder of a workspace: PM2's home and sockets, the run lock.

Its path depends on uid, workspace and what is on disk, not on variables, so that every shell finds
the same folder. It is short, since a socket's path has at most 107 bytes, and outside the
workspace, which may be a network volume. It is in /tmp, which every container has; where another
user has taken the name there, it is in the home directory. /run/user is no place for it: systemd
empties that when its user logs out, and instances stay.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path

from .failure import Failure

TMP = Path("/tmp")
LONGEST_HOME = 70
"""Bytes; the folder's name and that of the longest socket follow."""


def folder(workspace: Path) -> Path:
    """The private folder's path; it may not exist."""
    name = hashlib.sha256(os.fsencode(workspace.resolve())).hexdigest()[:12]
    paths = [place / name for place in _places()]
    ours = (path for path in paths if _is_ours(path.parent) and _is_ours(path))
    free = (path for path in paths if not _is_taken(path.parent))
    return next(ours, None) or next(free, paths[0])


def _places() -> Iterator[Path]:
    yield TMP / f"comfy-machine-{os.getuid()}"
    try:
        home = Path(pwd.getpwuid(os.getuid()).pw_dir) / ".comfy-machine"
    except KeyError:
        return
    if len(os.fsencode(home)) <= LONGEST_HOME:
        yield home


def _is_ours(path: Path) -> bool:
    """Whether it is a folder of this user, and not a link to one."""
    try:
        status = path.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid()


def _is_taken(path: Path) -> bool:
    return os.path.lexists(path) and not _is_ours(path)


def make(workspace: Path) -> Path:
    """Create the private folder (0700). Raises Failure if that fails or it is another user's."""
    path = folder(workspace)
    for part in (path.parent, path):
        try:
            part.mkdir(mode=0o700)
        except FileExistsError:
            if not _is_ours(part):
                raise Failure(f"{part} belongs to another user: remove it") from None
            if part.stat().st_mode & 0o077:
                part.chmod(0o700)
        except OSError as error:
            raise Failure(
                f"{part} can't be created ({error.strerror}): make /tmp writable; a container with "
                "a read-only root needs --tmpfs /tmp"
            ) from None
    return path
