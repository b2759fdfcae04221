"""Makes the paths of a machine file absolute."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

STORE = ".store"
"""The default folder of downloads, in the models folder."""


def absolute(base: Path, path: str | Path, environ: Mapping[str, str]) -> Path:
    """A path relative to base, `~` expanded and normalised; links are not resolved.

    Raises ValueError for `~` when HOME is not set.
    """
    text = str(path)
    if text == "~" or text.startswith("~/"):
        if not environ.get("HOME"):
            raise ValueError("begins with ~, but HOME is not set: write the folder in full")
        text = environ["HOME"] + text[1:]
    return Path(os.path.normpath(os.path.join(base, text)))  # noqa: PTH118  for 5,000 models
