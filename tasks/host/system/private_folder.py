"""The private folder of a workspace: PM2's home and sockets, the run lock.

Its path depends only on uid and workspace, so that every shell finds the same folder. It is short,
since a socket's path has at most 107 bytes, and outside the workspace, which may be a network
volume.
"""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

from .failure import Failure


def folder(workspace: Path) -> Path:
    """The private folder's path; it may not exist."""
    name = hashlib.sha256(os.fsencode(workspace.resolve())).hexdigest()[:12]
    return Path("/tmp") / f"comfy-machine-{os.getuid()}" / name


def make(workspace: Path) -> Path:
    """Create the private folder (0700). Raises Failure if that fails or it is another user's."""
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
                f"{part} can't be created ({error.strerror}): make /tmp writable; a container with "
                "a read-only root needs --tmpfs /tmp"
            ) from None
    return path
