"""Paths of a machine file, made absolute once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

STORE = ".store"
"""The folder of downloads in the models folder, where machine.yaml names no other."""


def absolute(base: Path, path: str | Path, environ: Mapping[str, str]) -> Path:
    """A path below base, `~` expanded, normalised by its text: links stay as they are.

    Raises ValueError when `~` has no meaning, since HOME is not set.
    """
    text = str(path)
    if text == "~" or text.startswith("~/"):
        if not environ.get("HOME"):
            raise ValueError("begins with ~, but HOME is not set: write the folder in full")
        text = environ["HOME"] + text[1:]
    return Path(os.path.normpath(os.path.join(base, text)))  # noqa: PTH118  for 5,000 models
