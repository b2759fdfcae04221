"""The owners and hashes of an environment's files, from the RECORD of each package.

A RECORD lists path, sha256 and size of each file of a wheel; the installer completes it. In a real
environment with 44,000 files of 190 packages, all were correct. Files without a hash, which are
bytecode and the RECORD itself, have no owner.
"""

from __future__ import annotations

import base64
import csv
import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..system.files import file_digest

Claims = Mapping[str, Mapping[str, str]]
"""Path relative to site-packages → package with that file → the hash in its RECORD."""


@dataclass(frozen=True)
class Wrong:
    """A file that differs from its package's RECORD."""

    package: str
    path: str
    """Relative to site-packages."""
    gone: bool = False


def name_of(info: str) -> str:
    """The normalized package name in the name of a dist-info folder."""
    return re.sub(r"[-_.]+", "-", info.removesuffix(".dist-info").rpartition("-")[0]).lower()


def claims(site: Path, names: Collection[str] | None = None) -> Claims:
    """The files of these packages, by default of all."""
    owners: dict[str, dict[str, str]] = {}
    for info in site.glob("*.dist-info"):
        package = name_of(info.name)
        if names is not None and package not in names:
            continue
        for path, digest, _ in _rows(info / "RECORD"):
            owners.setdefault(path, {})[package] = digest
    return owners


def _rows(record: Path) -> list[tuple[str, str, str]]:
    """Path, hash and size of each row; skips rows that have no hash or are damaged."""
    try:
        text = record.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return []
    if '"' in text:
        rows = [row for row in csv.reader(text.splitlines()) if len(row) == 3]
    else:
        # Five times as fast, with up to 50,000 rows.
        rows = [line.rsplit(",", 2) for line in text.splitlines() if line.count(",") >= 2]
    return [
        (os.path.normpath(path), digest.removeprefix("sha256="), size)
        for path, digest, size in rows
        if digest.startswith("sha256=") and not path.endswith((".pyc", ".pyo"))
    ]


def sizes(site: Path) -> dict[str, int]:
    """dist-info folder → bytes of its RECORD. Raises OSError."""
    found = (info / "RECORD" for info in site.glob("*.dist-info"))
    return {record.parent.name: record.stat().st_size for record in found if record.is_file()}


def damaged(site: Path, known: Mapping[str, int]) -> list[str]:
    """The dist-info folders whose RECORD lost lines or isn't one; `known`: their sizes of before.

    An installer that runs later may write other, longer ones.
    """
    return [name for name in known if not _is_record(site / name / "RECORD", known[name])]


def _is_record(record: Path, least: int) -> bool:
    try:
        content = record.read_bytes()
    except OSError:
        return False
    # pip ends lines with \r\n.
    own = os.fsencode(f"{record.parent.name}/{record.name},,")
    return len(content) >= least and content.endswith(b"\n") and own in content


def of_other_size(site: Path, names: Collection[str]) -> list[Wrong]:
    """Files of these packages whose size differs from that in every RECORD with them: 44,000 in
    half a second."""
    found: dict[str, list[Wrong]] = {}
    intact: set[str] = set()
    for info in site.glob("*.dist-info"):
        package = name_of(info.name)
        for path, _, size in _rows(info / "RECORD") if package in names else ():
            try:
                actual = os.stat(f"{site}/{path}").st_size  # noqa: PTH116  Path is slower
            except OSError:
                actual = -1
            if str(actual) == size:
                intact.add(path)
            else:
                found.setdefault(path, []).append(Wrong(package, path, actual < 0))
    return [each for path, wrong in found.items() if path not in intact for each in wrong]


def digest(path: Path) -> str | None:
    """The sha256 of a file in the form of a RECORD; None if it is missing. Raises OSError."""
    total = file_digest(path)
    return total and base64.urlsafe_b64encode(bytes.fromhex(total)).rstrip(b"=").decode()


def judge(path: str, owners: Mapping[str, str], actual: str | None) -> list[Wrong]:
    """What is wrong with a file that has this hash: nothing if any of its packages has the same."""
    if actual in owners.values():
        return []
    return [Wrong(package, path, actual is None) for package in sorted(owners)]


def compare(site: Path, owners: Claims, paths: Collection[str]) -> list[Wrong]:
    """Those of these files that differ from their packages' RECORDs. Raises OSError."""
    return [
        wrong
        for path in paths
        if path in owners
        for wrong in judge(path, owners[path], digest(site / path))
    ]
