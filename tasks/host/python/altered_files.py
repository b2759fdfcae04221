"""Files of packages that differ from what was installed, recorded beside the environment.

*Rewritten* ones are those that custom nodes rewrite at every import, so they stay as they are.
*Spoilt* ones are all others, which `doit verify` finds; their environment is replaced.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from ..system import files
from .records import Wrong

Spoilt = Mapping[str, list[str]]
"""Package → its files, relative to site-packages."""


@dataclass(frozen=True)
class Rewritten:
    """A file that something rewrites."""

    package: str
    who: str
    """Who rewrote it, such as "custom node alpha"."""


AGAIN = "something that ran since it was last restored"
"""Who rewrote a file that was restored before."""


def _spoilt_file(environment: Path) -> Path:
    return environment.with_name(f"{environment.name}.spoilt.json")


def _rewritten_file(environment: Path) -> Path:
    return environment.with_name(f"{environment.name}.written.json")


def by_package(wrong: Iterable[Wrong]) -> dict[str, list[str]]:
    """Package → its wrong files."""
    paths: dict[str, list[str]] = {}
    for each in wrong:
        paths.setdefault(each.package, []).append(each.path)
    return paths


def spoilt(environment: Path) -> dict[str, list[str]]:
    """Package → its recorded spoilt files."""
    packages = files.read_receipt(_spoilt_file(environment), packages=dict).get("packages", {})
    return {name: list(map(str, paths)) for name, paths in packages.items() if paths}


def note_spoilt(environment: Path, wrong: Iterable[Wrong]) -> None:
    """Record the result of a check of all files; without wrong files, remove the record."""
    if packages := by_package(wrong):
        files.write_receipt(_spoilt_file(environment), {"packages": packages})
    else:
        _spoilt_file(environment).unlink(missing_ok=True)


def rewritten(environment: Path) -> dict[str, Rewritten]:
    """The rewritten files, by path relative to site-packages. Skips damaged entries."""
    entries = {}
    recorded = files.read_receipt(_rewritten_file(environment), files=dict).get("files", {})
    for path, each in recorded.items():
        with contextlib.suppress(LookupError, TypeError):
            entries[path] = Rewritten(str(each["package"]), str(each["who"]))
    return entries


def note_rewritten(environment: Path, more: Mapping[str, Rewritten]) -> None:
    """Record more rewritten files."""
    if entries := rewritten(environment) | dict(more):
        recorded = {path: asdict(each) for path, each in entries.items()}
        files.write_receipt(_rewritten_file(environment), {"files": recorded})


def expect(environment: Path, previous: Mapping[str, Rewritten], restored: Spoilt) -> None:
    """Record restored files as rewritten, for the case that they change again."""
    again = {
        path: Rewritten(package, AGAIN) for package, paths in restored.items() for path in paths
    }
    note_rewritten(environment, {**again, **previous})
