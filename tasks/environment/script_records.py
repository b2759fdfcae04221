"""What the scripts of custom nodes did in an environment, and which of it stands in the next.

A script runs again when its node, its commit, or a package that it touches changed: one that it
added, one that the lock holds and it tried to change, and what those that it added ask for.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..host.python import environments, records, uv
from ..host.storage import digest_folders
from ..spec import Package

Records = dict[str, dict[str, Any]]
"""Node → `version` of its script, `added` (name → version), `touches` (name → version or
commit)."""


def read_records(environment: Path) -> Records:
    """What is noted of the scripts that ran in an environment; a damaged note is none."""
    noted = digest_folders.read(environment, scripts=dict).get("scripts", {})
    kinds = {"version": str, "added": dict, "touches": dict}
    return {
        node: each
        for node, each in noted.items()
        if isinstance(each, dict) and all(isinstance(each.get(k), t) for k, t in kinds.items())
    }


def added_packages(noted: Records) -> dict[str, str]:
    """Name → version of what these scripts added."""
    return {name: str(v) for each in noted.values() for name, v in each["added"].items()}


def make_record(
    version: str,
    home: Path,
    before: Mapping[str, str],
    changed: set[str],
    packages: Mapping[str, Package],
) -> dict[str, Any]:
    """The record of a script that has just run; `before` is what was installed until then."""
    there = environments.installed(home)
    new = {name: v for name, v in there.items() if name not in packages and before.get(name) != v}
    names = {*new, *changed, *_dependencies(home, new)}
    shown = there | {name: package.shown for name, package in packages.items()}
    touches = {name: shown[name] for name in sorted(names) if name in shown}
    return {"version": version, "added": new, "touches": touches}


def valid_records(
    noted: Records,
    scripts: Mapping[str, str],
    packages: Mapping[str, Package],
    there: Mapping[str, str],
) -> Records:
    """The records of scripts that need not run again: with these packages locked, all that they
    touched is as it was. `there` is what is installed where they ran."""
    stand = {name: each for name, each in noted.items() if scripts.get(name) == each["version"]}
    while True:
        shown = {name: there[name] for name in added_packages(stand) if name in there}
        shown |= {name: package.shown for name, package in packages.items()}
        left = {
            node: each
            for node, each in stand.items()
            if all(shown.get(name) == version for name, version in each["touches"].items())
        }
        if len(left) == len(stand):
            return left
        stand = left


def _dependencies(home: Path, names: Mapping[str, str]) -> set[str]:
    """What these packages ask for, by their own metadata."""
    from importlib.metadata import Distribution

    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.utils import canonicalize_name

    found = set()
    for info in environments.infos(uv.site_packages(home)):
        if records.name_of(info.name) in names:
            for line in Distribution.at(info).requires or ():
                try:
                    found.add(str(canonicalize_name(Requirement(line).name)))
                except InvalidRequirement:
                    continue
    return found
