"""The user's cache, which all workspaces share: `$XDG_CACHE_HOME/comfy-machine`."""

from __future__ import annotations

import os
from pathlib import Path


def folder() -> Path:
    configured = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # The XDG specification says to ignore relative paths.
    root = configured if configured.is_absolute() else Path.home() / ".cache"
    return root / "comfy-machine"
