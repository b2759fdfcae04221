"""The secrets of instances, workers, custom nodes and jobs, from the files that these read them
from."""

from __future__ import annotations

import re
from pathlib import Path

from ...spec.layout import Layout
from ..system import files
from ..system.stat_cache import while_unchanged


def values(layout: Layout) -> frozenset[str]:
    """All values, also of variables that hold no secret; cheap until a file is added or removed."""
    files_of = (*_values(layout.secrets), *_values(layout.dotenvs))
    return frozenset((*files_of, *_lines(layout.jobs_token)))


@while_unchanged
def _lines(file: Path) -> list[str]:
    try:
        return files.read_bytes(file).decode(errors="replace").split()
    except OSError:
        return []


@while_unchanged
def _values(folder: Path) -> list[str]:
    """The values in a folder's environment files and `.env` files."""
    found: list[str] = []
    for path in folder.glob("*.json"):
        found += [value for value in files.read_receipt(path).values() if isinstance(value, str)]
    for path in folder.glob("*.env"):
        try:
            lines = files.read_bytes(path).decode(errors="replace").split("\n")
        except OSError:
            continue
        found += [_unquoted(line.partition("=")[2]) for line in lines if "=" in line]
    return found


def _unquoted(text: str) -> str:
    """The value of a text that the stage `dotenv` quoted."""
    if len(text) > 1 and text[0] == text[-1] == "'":
        text = text[1:-1]
    elif len(text) > 1 and text[0] == text[-1] == '"':
        letters = {"n": "\n", "r": "\r"}
        text = re.sub(r"\\(.)", lambda found: letters.get(found[1], found[1]), text[1:-1])
        text = text.removesuffix("${:-}")
    return text.replace("${:-$}{", "${")
