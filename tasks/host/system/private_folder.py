"""The private folder of a workspace: PM2's home and sockets, the run lock.

Found by uid and workspace alone, so that every shell finds the same one; short, since a
socket's path ends at 107 bytes; never in the workspace, which may be a network volume.
"""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

from .failure import Failure


def folder(workspace: Path) -> Path:
    """The private folder's path; nothing is made."""
    name = hashlib.sha256(os.fsencode(workspace.resolve())).hexdigest()[:12]
    return Path("/tmp") / f"comfy-machine-{os.getuid()}" / name


def make(workspace: Path) -> Path:
    """Make the private folder (0700). Raises Failure when it can't be, or is another user's."""
    path = folder(workspace)
    for part in (path.parent, path):
        try:
            part.mkdir(mode=0o700)
        except FileExistsError:
            status = part.lstat()
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
                raise Failure(f"{part} belongs to another user: remove it") from None
            if status.st_mode & 0o077:
                part.chmod(0o700)
        except OSError as error:
            raise Failure(
                f"{part} can't be made ({error.strerror}): /tmp has to be writable, in a "
                "container with a read-only root by --tmpfs /tmp"
            ) from None
    return path
