"""What is in a Python environment, and what differs from what belongs there.

No two environments share a file that anyone may write to, and none shares one with uv's
cache: custom nodes patch packages in place, and a hard link carries that everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...spec import Package, PythonSet
from ..storage import digest_folders, trees
from ..system import files
from ..system.stat_cache import while_unchanged
from . import altered_files, records, uv
from .records import Wrong

#: Native libraries: they are never patched in place, and they are most of an environment's bytes.
NATIVE = re.compile(r"\.(so(\.\d+)*|a)$")

LIST = "packages.txt"
"""In an environment: its packages as they were asked for, with hashes."""


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
    """The packages that a receipt names; None when it is missing or damaged."""
    try:
        return PythonSet.model_validate(files.read_receipt(file))
    except ValueError:
        return None


def installed(folder: Path) -> dict[str, str]:
    """Name → version of every package in the environment now. Raises OSError."""
    return listed(uv.site_packages(folder))


def infos(site_packages: Path) -> Iterator[Path]:
    """The folder that each package's installer left there."""
    return site_packages.glob("*.dist-info")


def listed(site_packages: Path) -> dict[str, str]:
    """Name → version of every package there."""
    return dict(named(path.name) for path in infos(site_packages))


def named(dist_info: str) -> tuple[str, str]:
    """The name and version that a dist-info folder's name says."""
    version = dist_info.removesuffix(".dist-info").rpartition("-")[2]
    return records.name_of(dist_info), version


def additions(folder: Path) -> dict[str, str]:
    """Name → version of what came into an environment after all that is recorded of it: by hand,
    by ComfyUI-Manager, by a custom node that runs."""
    receipt = digest_folders.read(folder)
    try:
        there = installed(folder) if receipt else {}
    except OSError:
        return {}
    locked = {records.name_of(info) for info in receipt.get("installed", ())}
    guests = receipt.get("guests", {})
    return {
        name: version
        for name, version in there.items()
        if name not in locked and guests.get(name) != version
    }


def is_native(name: str) -> bool:
    return NATIVE.search(name) is not None


def is_removable(folder: Path) -> bool:
    """Whether each package there can be removed: uv can't without its list of files."""
    return all((info / "RECORD").is_file() for info in infos(uv.site_packages(folder)))


def grow(previous: Path, folder: Path) -> None:
    """Copy an environment; native libraries are shared if `previous` has its files for itself.

    One that an older comfy-machine made is linked with uv's cache: of it everything is copied.
    Raises OSError.
    """
    own = bool(digest_folders.read(previous).get("own"))
    trees.copy(previous, folder, lambda name: own and is_native(name))


def heal(
    folder: Path,
    requirements: Path,
    where: tuple[Sequence[str], Mapping[str, str]],
    paths: altered_files.Spoilt,
    log: Path,
) -> list[Wrong]:
    """After these packages were installed anew: which of these files are wrong all the same.

    What uv's cache holds may be as wrong, since an older comfy-machine shared files with it: such
    packages are downloaded, and the cache forgets them. Raises CommandFailed.
    """
    if left := _unlike(folder, paths):
        names = {each.package for each in left}
        uv.install(folder, requirements, *where, log, anew=names, cached=False)
        uv.forget(names, log)
        left = _unlike(folder, paths)
    return left


def _unlike(folder: Path, paths: altered_files.Spoilt) -> list[Wrong]:
    site = uv.site_packages(folder)
    every = [path for name in paths for path in paths[name]]
    return records.compare(site, records.claims(site, set(paths)), every)


def written_since(folder: Path, moment: int) -> trees.TreeScan:
    """The files of site-packages, and what was written there since a moment (`trees.now`)."""
    return trees.scan(uv.site_packages(folder), moment, is_native)


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
    receipt = digest_folders.read(folder)
    try:
        return (digest_folders.damaged(folder, receipt, damage) if receipt else None) or ""
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
    """What of the record doesn't hold any more. What came beside it is no damage: `additions`."""
    if reason := lost(folder, receipt):
        return reason
    for name, paths in sorted(altered_files.spoilt(folder).items()):
        return f"{paths[0]} of {name} isn't what was installed"
    return None


def lost(folder: Path, receipt: dict[str, Any]) -> str | None:
    """What is missing of it."""
    for name in ("bin/python", "pyvenv.cfg"):
        if not (folder / name).exists():
            return f"{name} is missing from {folder.name}"
    try:
        there = {path.name for path in uv.site_packages(folder).iterdir()}
    except OSError:
        return f"{folder.name} has no site-packages"
    gone = sorted({*receipt["installed"], *receipt["top"]} - there)
    return f"{gone[0]} is missing from {folder.name}" if gone else None
