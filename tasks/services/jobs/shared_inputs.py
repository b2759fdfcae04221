"""The inputs of jobs that run on other machines, each kept here under the blake3 of its bytes.

They are hard links: a file that is uploaded again under the same name is another one.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

from blake3 import blake3

from ...spec.layout import Layout
from .output_folders import OutputFolders
from .stored_workflow import Graph

FOLDER = ".kept"
"""In the folder of inputs; ComfyUI doesn't list it."""
DIGEST = re.compile(r"[0-9a-f]{64}")
SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,10}")
MARK = " [input]"
"""What ComfyUI allows behind the name of an input."""
LONGEST = 1024
"""Characters of a value that may be the name of a file."""
SPARED = 3600.0
"""Seconds for which what no job names is kept: its job may not be noted yet."""
REMEMBERED = 10_000
"""Digests."""


class SharedInputs:
    """Of one machine. Its functions wait for the disk, and raise OSError."""

    def __init__(self, layout: Layout) -> None:
        self._inputs, self._folders = layout.inputs, OutputFolders(layout)
        self.folder = layout.inputs / FOLDER
        self._known: dict[tuple[int, int, int], str] = {}

    def get(self, digest: str) -> Path | None:
        """The bytes of this digest; None: they aren't here."""
        path = self.folder / digest
        return path if DIGEST.fullmatch(digest) and path.is_file() else None

    def note(self, workflow: Graph) -> dict[str, str]:
        """The values in this workflow that name inputs, each with the digest under which its
        bytes are kept from now on. A name has an ending: other text may equal a file's by chance.
        """
        found: dict[str, str] = {}
        for value in _texts(workflow):
            if value not in found and (path := self._path(value)) is not None:
                found[value] = self._keep(path)
        return found

    def holds(self, value: str, digest: str) -> bool:
        """Whether the file that this value names has these bytes."""
        path = self._path(value)
        return path is not None and self._digest(path) == digest

    def has(self, digest: str) -> bool:
        """Whether the bytes are here, and are these: somebody may have written into the file."""
        path = self.get(digest)
        return path is not None and self._digest(path) == digest

    def take(self, part: Path, digest: str) -> None:
        """Keep a file that came from elsewhere."""
        part.replace(self.folder / digest)

    def place(self, value: str, digest: str) -> str:
        """Let a loader find the bytes, which are kept: under this name where it is free, otherwise
        under one that says what they are. Returns the name."""
        name = _name(value)
        if name is None:
            raise OSError(f"{value} leads elsewhere")
        if _link(self.folder / digest, self._inputs / name) or self.holds(value, digest):
            return value
        own = f"{digest}{PurePosixPath(name).suffix.lower()}"
        _link(self.folder / digest, self._inputs / own)
        return own

    def sweep(self, known: Collection[str]) -> None:
        """Remove what no job names any more."""
        with suppress(FileNotFoundError):
            for path in [*self.folder.iterdir()]:
                old = time.time() - path.lstat().st_ctime > SPARED
                if old and path.name not in known:
                    path.unlink(missing_ok=True)

    def _path(self, value: str) -> Path | None:
        if (name := _name(value)) is None:
            return None
        return self._folders.locate(name.name, str(name.parent), "input")

    def _keep(self, path: Path) -> str:
        about = _about(path)
        known = self._known.get(about)
        if known is not None and self.get(known):
            return known
        # Linked first: under its name there may soon be another file.
        part = self.folder / f"{secrets.token_hex(8)}.part"
        _link(path, part)
        try:
            digest = self._digest(part)
            part.replace(self.folder / digest)
        finally:
            part.unlink(missing_ok=True)
        return digest

    def _digest(self, path: Path) -> str:
        about = _about(path)
        if (known := self._known.get(about)) is not None:
            return known
        digest = blake3().update_mmap(path).hexdigest()
        self._known[about] = digest
        if len(self._known) > REMEMBERED:
            del self._known[next(iter(self._known))]
        return digest


def _texts(workflow: Graph) -> Iterator[str]:
    for node in workflow.values():
        inputs = node.get("inputs") if isinstance(node, dict) else None
        for value in inputs.values() if isinstance(inputs, dict) else ():
            if isinstance(value, str):
                yield value


def with_names(workflow: Graph, names: dict[str, str]) -> Graph:
    """The workflow with other names of inputs."""
    found = {}
    for key, node in workflow.items():
        inputs = node.get("inputs")
        if isinstance(inputs, dict):
            node = {**node, "inputs": {k: _renamed(v, names) for k, v in inputs.items()}}
        found[key] = node
    return found


def _renamed(value: object, names: dict[str, str]) -> object:
    return names.get(value, value) if isinstance(value, str) else value


def _name(value: str) -> PurePosixPath | None:
    """The file in the folder of inputs that a value may mean."""
    if len(value) > LONGEST:
        return None
    name = PurePosixPath(value.removesuffix(MARK))
    if name.is_absolute() or any(part.startswith(".") for part in name.parts):
        return None
    return name if SUFFIX.fullmatch(name.suffix) else None


def _about(path: Path) -> tuple[int, int, int]:
    about = path.stat()
    return about.st_ino, about.st_mtime_ns, about.st_size


def _link(source: Path, target: Path) -> bool:
    """Whether the file is there now under this name; False: another one had it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except FileExistsError:
        return False
    except OSError:
        # Another file system, or one without links.
        part = target.with_name(f"{secrets.token_hex(8)}.part")
        shutil.copyfile(source, part)
        part.replace(target)
    return True
