"""Files of packages that are not what was installed, as they are noted beside an environment.

*Known* are those that custom nodes write into while they are imported: they do it anew in each
environment, it stays in that one, and mending it would have no end. *Spoilt* are all others, which
`doit verify` finds: an environment that has them is made anew.
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
class Known:
    """A file that something writes into."""

    package: str
    who: str
    """Who did it, in words: "custom node alpha"."""


AGAIN = "something that ran since it was last put back"
"""Who wrote into a file that was mended before."""


def _spoilt_file(environment: Path) -> Path:
    return environment.with_name(f"{environment.name}.spoilt.json")


def _known_file(environment: Path) -> Path:
    return environment.with_name(f"{environment.name}.written.json")


def by_package(wrong: Iterable[Wrong]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for each in wrong:
        found.setdefault(each.package, []).append(each.path)
    return found


def spoilt(environment: Path) -> dict[str, list[str]]:
    found = files.read_receipt(_spoilt_file(environment), packages=dict).get("packages", {})
    return {name: list(map(str, paths)) for name, paths in found.items() if paths}


def note_spoilt(environment: Path, wrong: Iterable[Wrong]) -> None:
    """Write down what a look at every file found; nothing: what an earlier one found is mended."""
    if packages := by_package(wrong):
        files.write_receipt(_spoilt_file(environment), {"packages": packages})
    else:
        _spoilt_file(environment).unlink(missing_ok=True)


def known(environment: Path) -> dict[str, Known]:
    """By path, relative to site-packages."""
    found = {}
    noted = files.read_receipt(_known_file(environment), files=dict).get("files", {})
    for path, each in noted.items():
        # A damaged note is none.
        with contextlib.suppress(LookupError, TypeError):
            found[path] = Known(str(each["package"]), str(each["who"]))
    return found


def note_known(environment: Path, found: Mapping[str, Known]) -> None:
    """Write down more of them."""
    every = known(environment) | dict(found)
    if every:
        noted = {path: asdict(each) for path, each in every.items()}
        files.write_receipt(_known_file(environment), {"files": noted})


def expect(environment: Path, before: Mapping[str, Known], mended: Spoilt) -> None:
    """Write down what was mended in this environment: should it be written into again, it is known
    that something here does so."""
    again = {path: Known(package, AGAIN) for package, paths in mended.items() for path in paths}
    note_known(environment, {**again, **before})
