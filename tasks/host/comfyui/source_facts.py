"""What the code of a ComfyUI says of itself before it runs: version, flags, folder types.

`main.py --help` lists every flag, and folder_paths.py every folder type. Both need only the
standard library, since they run before torch is imported (tried from 0.3.43 to 0.33.0). None: not
known.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..system import files, process

TIMEOUT = 120.0
"""Seconds; both take 0.1, unless a ComfyUI imports torch before it parses its arguments."""
REFUSED = 2
"""argparse's exit code for invalid arguments."""
_OPTION = re.compile(r"^  (-\S.*?)(?:  .*)?$", re.M)
"""A line of `--help` that begins with an option. Its help follows after two spaces, or on lines
that are indented further."""
_NAME = re.compile(r"(?:^|, )(--?\w[\w-]*)")
_FOLDER_TYPES = """
import json, os, sys
out, sys.argv = sys.argv[1], ["main.py"]
os.makedirs = os.mkdir = lambda *args, **options: None  # it would create input/ in the checkout
import folder_paths
known = folder_paths.folder_names_and_paths.items()
found = {
    "folders": {
        kind: [os.path.relpath(path, folder_paths.models_dir) for path in paths]
        for kind, (paths, *_) in known
    },
    "extensions": {kind: sorted(*rest[:1]) if rest else [] for kind, (_, *rest) in known},
}
with open(out, "w") as file:
    json.dump(found, file)
"""


@dataclass(frozen=True)
class Code:
    """What is known of one ComfyUI."""

    version: str = ""
    """Empty: it has none."""
    flags: frozenset[str] | None = None
    folder_types: Mapping[str, tuple[str, ...]] | None = None
    """Folder type → its folders below models/; empty for one that lies elsewhere, as `datasets`."""
    extensions: Mapping[str, tuple[str, ...]] | None = None
    """Folder type → the extensions that it lists, in small letters; empty: it lists all files, or
    folders."""

    @property
    def whole(self) -> bool:
        return self.flags is not None and self.folder_types is not None

    def knows(self, flag: str) -> bool:
        """Whether it has a flag; True while its flags aren't known."""
        return self.flags is None or flag in self.flags

    def receipt(self) -> dict[str, Any]:
        """The receipt, as `of` reads it."""
        flags = None if self.flags is None else sorted(self.flags)
        return {
            "version": self.version,
            "flags": flags,
            "folder_types": self.folder_types,
            "extensions": self.extensions,
        }


def of(receipt: Any) -> Code:
    """What a receipt says; empty for a malformed one."""
    try:
        flags = receipt["flags"]
        return Code(
            str(receipt["version"]),
            None if flags is None else frozenset(map(str, flags)),
            _by_type(receipt["folder_types"]),
            # Receipts of earlier versions have none.
            _by_type(receipt.get("extensions")),
        )
    except (LookupError, TypeError, AttributeError):
        return Code()


def _by_type(found: Any) -> Mapping[str, tuple[str, ...]] | None:
    return None if found is None else {kind: tuple(map(str, of)) for kind, of in found.items()}


def ask(
    python: Path,
    checkout: Path,
    env: Mapping[str, str],
    log: Path | None,
    known: Code | None = None,
) -> Code:
    """Complete `known` by running ComfyUI's code with this Python. Writes nothing in `checkout`."""
    known = known or Code(version=version_of(checkout))
    if known.flags is None:
        known = replace(known, flags=_flags(python, checkout, env, log))
    if known.folder_types is None:
        types, extensions = _folder_types(python, checkout, env, log)
        known = replace(known, folder_types=types, extensions=extensions)
    return known


def refusal(
    python: Path, checkout: Path, env: Mapping[str, str], log: Path | None, args: Sequence[str]
) -> str | None:
    """argparse's message for an invalid value; None: all are valid, or it isn't known.

    argparse parses them in order, so a wrong one ends it before `--help` at the end. It would
    report an unknown flag only after the last argument.
    """
    try:
        _run(python, checkout, env, log, ["main.py", *args, "--help"])
    except process.CommandFailed as failed:
        if failed.code == REFUSED:
            return process.last_line(failed.output).removeprefix("main.py: error: ")
    return None


def first_refused(
    python: Path, checkout: Path, env: Mapping[str, str], log: Path | None, args: Sequence[str]
) -> tuple[int, str] | None:
    """The index of the first invalid argument, and argparse's message; None: all are valid."""
    why = refusal(python, checkout, env, log, args)
    if why is None:
        return None
    valid = (n for n in range(len(args) - 1, 0, -1)
             if refusal(python, checkout, env, log, args[:n]) is None)  # fmt: skip
    return next(valid, 0), why


def parse_flags(text: str) -> frozenset[str] | None:
    """The flags in argparse's help; None if `text` is something else."""
    found = {name for option in _OPTION.findall(text) for name in _NAME.findall(option)}
    return frozenset(found) if "--help" in found else None


def _flags(
    python: Path, checkout: Path, env: Mapping[str, str], log: Path | None
) -> frozenset[str] | None:
    try:
        return parse_flags(_run(python, checkout, env, log, ["main.py", "--help"]))
    except process.CommandFailed:
        return None


def _folder_types(
    python: Path, checkout: Path, env: Mapping[str, str], log: Path | None
) -> tuple[Mapping[str, tuple[str, ...]] | None, Mapping[str, tuple[str, ...]] | None]:
    """The folders and the extensions of each folder type."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch, "folder_types.json")
        try:
            _run(python, checkout, env, log, ["-c", _FOLDER_TYPES, out])
            found = files.read_receipt(out, folders=dict, extensions=dict)
        except process.CommandFailed:
            return None, None
    below = {
        kind: tuple(path for path in paths if not path.startswith(".."))
        for kind, paths in found.get("folders", {}).items()
    }
    # A type of folders, as `diffusers`, has the one extension "folder".
    listed = {
        kind: tuple(each.lower() for each in of) if all(e.startswith(".") for e in of) else ()
        for kind, of in found.get("extensions", {}).items()
    }
    return (below, listed) if below else (None, None)


def _run(
    python: Path, checkout: Path, env: Mapping[str, str], log: Path | None, words: Sequence[object]
) -> str:
    # argparse wraps lines at the terminal's width, and may colour them.
    plain = {"COLUMNS": "100", "NO_COLOR": "1"}
    argv = [python, "-B", *words]
    return process.run(argv, env={**env, **plain}, cwd=checkout, log=log, timeout=TIMEOUT)


def version_of(checkout: Path) -> str:
    try:
        text = (checkout / "comfyui_version.py").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    found = re.search(r"""^__version__ = ["']([\w.+-]{1,40})["']""", text, re.M)
    return found[1] if found else ""
