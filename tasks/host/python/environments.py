"""The contents of a Python environment, and how they differ from what it should have.

Environments share no writable file with each other or with uv's cache, because custom nodes patch
packages in place, and a hard link would spread the change.
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
from . import altered_files, pth_hook, records, uv
from .records import Wrong

#: Native libraries are never patched in place, and are most of an environment's bytes.
NATIVE = re.compile(r"\.(so(\.\d+)*|a)$")

BASE = ("bin/python", "pyvenv.cfg")

LIST = "packages.txt"
"""A file in an environment: its packages as they were requested, with hashes."""
CONSTRAINTS = "constraints.txt"
"""A file in an environment: the versions that pip and uv must not change."""


@dataclass(frozen=True)
class Packages:
    """The Python environment against the lock."""

    ok: bool
    reason: str = ""
    wanted: int = 0
    installed: int = 0
    """How many of the wanted ones are installed in the wanted version."""
    wrong: dict[str, str] = field(default_factory=dict)
    """Package → what is wrong with it."""


def noted(file: Path) -> PythonSet | None:
    """The packages in a receipt; None when it is missing or damaged."""
    try:
        return PythonSet.model_validate(files.read_receipt(file))
    except ValueError:
        return None


def installed(folder: Path) -> dict[str, str]:
    """Name → version of every installed package. Raises OSError."""
    return listed(uv.site_packages(folder))


def infos(site_packages: Path) -> Iterator[Path]:
    """The dist-info folders."""
    return site_packages.glob("*.dist-info")


def listed(site_packages: Path) -> dict[str, str]:
    """Name → version of every package in a site-packages folder."""
    return dict(named(path.name) for path in infos(site_packages))


def named(dist_info: str) -> tuple[str, str]:
    """The name and version of a package, from the name of its dist-info folder."""
    version = dist_info.removesuffix(".dist-info").rpartition("-")[2]
    return records.name_of(dist_info), version


def additions(folder: Path) -> dict[str, str]:
    """Name → version of packages that the receipt doesn't have: installed by hand, by
    ComfyUI-Manager, or by a running custom node."""
    receipt = digest_folders.read(folder)
    try:
        versions = installed(folder) if receipt else {}
    except OSError:
        return {}
    locked = {records.name_of(info) for info in receipt.get("installed", ())}
    guests = receipt.get("guests", {})
    return {
        name: version
        for name, version in versions.items()
        if name not in locked and guests.get(name) != version
    }


def is_native(name: str) -> bool:
    return NATIVE.search(name) is not None


def is_removable(folder: Path) -> bool:
    """Whether uv can remove every package: it needs each one's RECORD."""
    return all((info / "RECORD").is_file() for info in infos(uv.site_packages(folder)))


def base(folder: Path) -> list[str | None]:
    """What tells Python where it is: the target or content of each file of BASE, as a digest."""
    links = {name: files.link_target(folder / name) for name in BASE}
    return [links[name] or files.file_digest(folder / name) for name in BASE]


def record_sizes(receipt: Mapping[str, Any]) -> dict[str, int]:
    """dist-info folder → bytes of its RECORD when the environment was made."""
    recorded = receipt.get("records")
    return dict(recorded) if isinstance(recorded, dict) else {}


def grow(previous: Path, folder: Path) -> None:
    """Copy an environment; native libraries are shared as hard links.

    Environments of older versions are linked to uv's cache, so they are copied completely. Raises
    OSError.
    """
    can_share = bool(digest_folders.read(previous).get("own"))
    trees.copy(previous, folder, lambda name: can_share and is_native(name))
    # These and uv's lock are written again; damage must not stand in their way.
    for own in (LIST, CONSTRAINTS, ".lock"):
        files.remove(folder / own)


def heal(
    folder: Path,
    requirements: Path,
    where: tuple[Sequence[str], Mapping[str, str]],
    paths: altered_files.Spoilt,
    log: Path,
) -> list[Wrong]:
    """After these packages were reinstalled, download those that are still wrong.

    uv's cache may have the wrong files too, because older versions shared files with it. Returns
    the files that are wrong even then. Raises CommandFailed.
    """
    if wrong := _wrong_files(folder, paths):
        names = {each.package for each in wrong}
        uv.install(folder, requirements, *where, log, anew=names, cached=False)
        uv.forget(names, log)
        wrong = _wrong_files(folder, paths)
    return wrong


def _wrong_files(folder: Path, paths: altered_files.Spoilt) -> list[Wrong]:
    site = uv.site_packages(folder)
    every = [path for name in paths for path in paths[name]]
    return records.compare(site, records.claims(site, set(paths)), every)


def written_since(folder: Path, moment: int) -> trees.TreeScan:
    """The files of site-packages, and those written since a moment (`trees.now`)."""
    return trees.scan(uv.site_packages(folder), moment, is_native)


def compare(folder: Path, wanted: PythonSet | None) -> Packages:
    """Compare an environment with the wanted set. Never raises."""
    packages = dict(wanted.packages) if wanted else {}
    try:
        versions = _listed(uv.site_packages(folder))
    except OSError:
        return Packages(False, "the environment is gone", len(packages))
    if wanted is None:
        return Packages(False, "which ones are wanted isn't known")
    wrong = {
        name: "isn't installed" if (version := versions.get(name)) is None else f"is {version}"
        for name, package in packages.items()
        if not fits(package, versions.get(name))
    }
    wrong = {name: f"{why}, {packages[name].shown} is wanted" for name, why in wrong.items()}
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
        return f"{error.filename} can't be read: {error.strerror}"


_listed = while_unchanged(listed)


def fits(package: Package, version: str | None) -> bool:
    """Whether an installed version is the wanted one; from a repository or URL any version is."""
    if version is None or package.version in (None, version):
        return version is not None
    from packaging.version import InvalidVersion, Version

    try:
        return Version(str(package.version)) == Version(version)
    except InvalidVersion:
        return False


def damage(folder: Path, receipt: dict[str, Any]) -> str | None:
    """What differs from the receipt; None if nothing. Added packages are no damage."""
    if reason := lost(folder, receipt):
        return reason
    for name, paths in sorted(altered_files.spoilt(folder).items()):
        return f"{paths[0]} of {name} isn't what was installed"
    return None


def lost(folder: Path, receipt: dict[str, Any]) -> str | None:
    """What the environment lacks; None if nothing."""
    for name in BASE:
        if not (folder / name).exists():
            return f"{name} is missing from {folder.name}"
    if receipt.get("base") not in (None, base(folder)):
        return f"{' or '.join(BASE)} of {folder.name} isn't what it was"
    try:
        names = {path.name for path in uv.site_packages(folder).iterdir()}
    except OSError:
        return f"{folder.name} has no site-packages"
    if pth_hook.FILE in receipt["top"] and not pth_hook.is_there(uv.site_packages(folder)):
        return f"{pth_hook.FILE} of {folder.name} isn't ours"
    missing = sorted({*receipt["installed"], *receipt["top"]} - names)
    return f"{missing[0]} is missing from {folder.name}" if missing else None
