"""What is in a Python environment, and what differs from what belongs there."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks.host import files, made, uv
from tasks.host.seen import while_unchanged
from tasks.spec import Package, PythonSet


@dataclass(frozen=True)
class Packages:
    """The Python environment against the lock."""

    ok: bool
    reason: str = ""
    wanted: int = 0
    installed: int = 0
    """Of the wanted ones, those that are there as they are wanted."""
    wrong: dict[str, str] = field(default_factory=dict)
    """Package → what is wrong with it."""


def noted(file: Path) -> PythonSet | None:
    """The packages that a receipt names; None when there is none, or it is damaged."""
    try:
        return PythonSet.model_validate(files.read_receipt(file))
    except ValueError:
        return None


def installed(folder: Path) -> dict[str, str]:
    """Name → version of every package in the environment now. Raises OSError."""
    return listed(uv.site_packages(folder))


def listed(site_packages: Path) -> dict[str, str]:
    """Name → version of every package there."""
    return dict(named(path.name) for path in site_packages.glob("*.dist-info"))


def named(dist_info: str) -> tuple[str, str]:
    """The name and version that a dist-info folder's name says."""
    name, _, version = dist_info.removesuffix(".dist-info").rpartition("-")
    return re.sub(r"[-_.]+", "-", name).lower(), version


def additions(folder: Path) -> dict[str, str]:
    """Name → version of what came into an environment beside what is recorded, as by hand."""
    receipt = made.read(folder, installed=list)
    try:
        there = installed(folder) if receipt else {}
    except OSError:
        return {}
    known = {named(str(each))[0] for each in receipt.get("installed", ())}
    return {name: version for name, version in there.items() if name not in known}


def compare(folder: Path, wanted: PythonSet | None) -> Packages:
    """An environment against the set that is to be in it; whatever is there, nothing is raised."""
    packages = dict(wanted.packages) if wanted else {}
    try:
        there = _listed(uv.site_packages(folder))
    except OSError:
        return Packages(False, "the environment is gone", len(packages))
    if wanted is None:
        return Packages(False, "which ones are wanted isn't known")
    wrong = {name: why for name, each in packages.items() if (why := _wrong(each, there.get(name)))}
    if wrong:
        name, why = next(iter(wrong.items()))
        reason = f"{name} {why}" + (f", and {len(wrong) - 1} more" if len(wrong) > 1 else "")
    else:
        reason = _damage(folder)
    return Packages(not reason, reason, len(packages), len(packages) - len(wrong), wrong)


def _damage(folder: Path) -> str:
    receipt = made.read(folder)
    try:
        return (made.damaged(folder, receipt, damage) if receipt else None) or ""
    except OSError as error:
        return f"{error.filename} can't be looked at: {error.strerror}"


def _wrong(package: Package, version: str | None) -> str:
    """What is wrong with an installed version, empty if nothing."""
    if fits(package, version):
        return ""
    found = "isn't installed" if version is None else f"is {version}"
    return f"{found}, {package.shown} is wanted"


_listed = while_unchanged(listed)


def fits(package: Package, version: str | None) -> bool:
    """Whether an installed version is the one that is wanted; of a repository or URL any is."""
    return version is not None and (package.version is None or _same(package.version, version))


def _same(one: str, other: str) -> bool:
    from packaging.version import InvalidVersion, Version

    try:
        return one == other or Version(one) == Version(other)
    except InvalidVersion:
        return False


def damage(folder: Path, receipt: dict[str, Any]) -> str | None:
    """What differs from the record by hand; what was added beside it is no damage."""
    for name in ("bin/python", "pyvenv.cfg"):
        if not (folder / name).exists():
            return f"{name} is missing from {folder.name}"
    try:
        there = {path.name for path in uv.site_packages(folder).iterdir()}
    except OSError:
        return f"{folder.name} has no site-packages"
    installed, top = set(receipt.get("installed", ())), set(receipt.get("top", ()))
    if gone := sorted((installed | top) - there):
        return f"{gone[0]} is missing from {folder.name}"
    return None
