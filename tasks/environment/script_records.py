"""Records of what the scripts of custom nodes did in an environment, for the next environment.

A script runs again when its node, its commit, or a package that it touches changes: one that it
added, a locked one that it tried to change, or a dependency of those it added.
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
    """The records of the scripts that ran in an environment; skips damaged records."""
    recorded = digest_folders.read(environment, scripts=dict).get("scripts", {})
    kinds = {"version": str, "added": dict, "touches": dict}
    return {
        node: each
        for node, each in recorded.items()
        if isinstance(each, dict) and all(isinstance(each.get(k), t) for k, t in kinds.items())
    }


def added_packages(recorded: Records) -> dict[str, str]:
    """Package that these scripts added → version."""
    return {name: str(v) for each in recorded.values() for name, v in each["added"].items()}


def make_record(
    version: str,
    home: Path,
    before: Mapping[str, str],
    changed: set[str],
    packages: Mapping[str, Package],
) -> dict[str, Any]:
    """The record of a script that has just run; `before`: package → version before it ran."""
    there = environments.installed(home)
    new = {name: v for name, v in there.items() if name not in packages and before.get(name) != v}
    names = {*new, *changed, *_dependencies(home, new)}
    shown = there | {name: package.shown for name, package in packages.items()}
    touches = {name: shown[name] for name in sorted(names) if name in shown}
    return {"version": version, "added": new, "touches": touches}


def valid_records(
    recorded: Records,
    scripts: Mapping[str, str],
    packages: Mapping[str, Package],
    there: Mapping[str, str],
) -> Records:
    """The records of scripts that need not run again, since all that they touched is unchanged.

    `scripts`: node → version of its script; `packages`: the lock's; `there`: package → version
    installed where they ran.
    """
    valid = {name: each for name, each in recorded.items() if scripts.get(name) == each["version"]}
    while True:
        shown = {name: there[name] for name in added_packages(valid) if name in there}
        shown |= {name: package.shown for name, package in packages.items()}
        left = {
            node: each
            for node, each in valid.items()
            if all(shown.get(name) == version for name, version in each["touches"].items())
        }
        if len(left) == len(valid):
            return left
        valid = left


def _dependencies(home: Path, names: Mapping[str, str]) -> set[str]:
    """What these packages require, by their metadata."""
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
