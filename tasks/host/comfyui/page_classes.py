"""Node classes that only ComfyUI's page has: JavaScript of custom nodes makes them, and no instance
ever gets such a node."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import islice
from pathlib import Path

MOST_FILES, MOST_BYTES = 5000, 5_000_000
"""Of JavaScript, and of one file of it."""


def named(comfyui: Path, web: Collection[str], classes: Collection[str]) -> set[str]:
    """Those of the classes that JavaScript of these folders has as a literal text.

    What isn't named may still be the page's own: some put such names together.
    """
    left = {each: {f"{quote}{each}{quote}".encode() for quote in "\"'`"} for each in classes}
    found: set[str] = set()
    for script in islice(_scripts(comfyui, web), MOST_FILES):
        found |= {each for each, texts in left.items() if any(text in script for text in texts)}
        if len(found) == len(left):
            break
    return found


def _scripts(comfyui: Path, web: Collection[str]) -> Iterator[bytes]:
    for folder in web:
        for file in sorted((comfyui / folder).rglob("*.js")):
            try:
                with file.open("rb") as opened:
                    yield opened.read(MOST_BYTES)
            except OSError:
                continue
