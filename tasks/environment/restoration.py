"""Find what a script or an import changed in an environment, and put back the locked packages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..engine.run import Run
from ..host.python import altered_files, environments, records, uv
from ..host.python.altered_files import Rewritten
from ..host.python.environments import fits
from ..host.python.records import Claims, Wrong
from ..host.system import process
from ..host.system.failure import Failure
from ..lock import packages, preinstalled
from ..lock.torch_family import TORCH_FAMILY

FILES_NAMED = 3
"""Files of one package that a message names."""


@dataclass(frozen=True)
class Changes:
    """Differences between an environment and the lock."""

    moved: Mapping[str, str]
    """Locked package → the version installed now, or "nothing"."""
    hiding: Mapping[str, str]
    """Package that hides a preinstalled one → its version."""
    patched: Mapping[str, list[str]]
    """Locked package → its files with another content."""
    newcomers: Mapping[str, set[str]]
    """Package that is not locked → the locked ones whose files it replaced."""

    @property
    def names(self) -> set[str]:
        """All locked packages that were changed."""
        return {*self.moved, *self.patched}


def find_changes(run: Run, folder: Path, since: int | None) -> Changes:
    """Compare with the lock; of the files, those written since a moment (`trees.now`)."""
    there = environments.installed(folder)
    required = packages.required(run).packages
    moved = {
        name: there.get(name, "nothing")
        for name, package in required.items()
        if not fits(package, there.get(name))
    }
    hiding = {n: there[n] for n in sorted(set(preinstalled.versions(run)) & set(there))}
    wrong, claims = (
        ([], {}) if since is None else _altered_files(folder, set(required) - set(moved), since)
    )
    patched: dict[str, list[str]] = {}
    newcomers: dict[str, set[str]] = {}
    for each in wrong:
        patched.setdefault(each.package, []).append(each.path)
        for other in set(claims[each.path]) - set(required) - set(hiding):
            newcomers.setdefault(other, set()).add(each.package)
    return Changes(moved, hiding, patched, newcomers)


def _altered_files(folder: Path, locked: set[str], since: int) -> tuple[list[Wrong], Claims]:
    """Files of locked packages that were written or removed, and the owners of all files."""
    site = uv.site_packages(folder)
    look = environments.written_since(folder, since)
    claims = records.claims(site)
    own = {
        path: {name: digest for name, digest in owners.items() if name in locked}
        for path, owners in claims.items()
    }
    gone = [
        p for p in own if p not in look.every and not (p.startswith("..") and (site / p).exists())
    ]
    touched = [path for path in (*look.written, *gone) if own.get(path)]
    return records.compare(site, own, touched), claims


def restore(
    run: Run, folder: Path, who: str, log: Path, *, since: int | None = None,
    patches_stay: bool = False,
) -> tuple[list[str], Changes]:  # fmt: skip
    """Put back what `who` changed of the locked packages; return messages, and the changes.

    With `patches_stay`, files that were modified in place stay and are recorded, since an import
    that patches them would do it again. Raises Failure when something can't be put back, and for
    a change of torch or a package that hides a preinstalled one: the node would do it again.
    """
    found = find_changes(run, folder, since)
    replaced = {name for names in found.newcomers.values() for name in names}
    reinstalled = set(found.patched) & replaced if patches_stay else set(found.patched)
    _put_back(run, folder, who, found, reinstalled, log)
    lines = _describe(run, who, found, reinstalled)
    stays = {name: paths for name, paths in found.patched.items() if name not in reinstalled}
    if stays:
        run.warn(f"{who} wrote into {_describe_files(stays)}: kept, in this environment only")
        marks = {path: Rewritten(name, who) for name, paths in stays.items() for path in paths}
        altered_files.note_rewritten(folder, marks)
    if found.hiding or (set(found.moved) | replaced) & set(TORCH_FAMILY):
        raise Failure("; ".join(lines) + ": the node needs another torch, or a fork", log)
    return lines, found


def _put_back(
    run: Run, folder: Path, who: str, found: Changes, reinstalled: set[str], log: Path
) -> None:
    """Raises Failure, which names `who`, if that is impossible."""
    away = sorted({*found.hiding, *found.newcomers} if reinstalled else found.hiding)
    required = packages.required(run).packages
    back = {name: required[name] for name in (*found.moved, *reinstalled)}
    left: list[Wrong] = []
    try:
        if away:
            uv.uninstall(folder, away, log)
        if back:
            listed, where = packages.requirements_file(run, back), packages.uv_sources(run)
            uv.install(folder, listed, *where, log, anew=set(back))
            paths = {name: found.patched[name] for name in reinstalled}
            left = environments.heal(folder, listed, where, paths, log)
    except process.CommandFailed as failed:
        problem = f"{who} changed {', '.join(sorted({*back, *away}))}, which can't be put back"
        raise Failure(f"{problem}: {process.last_line(failed.output)}", log) from failed
    if left:
        first = f"{left[0].path} of {left[0].package}"
        raise Failure(f"{who} changed {first}, which can't be put back", log)


def _describe(run: Run, who: str, found: Changes, reinstalled: set[str]) -> list[str]:
    required = packages.required(run).packages
    lines = [
        f"{who} changed {name} {required[name].shown} to {version} (put back)"
        for name, version in sorted(found.moved.items())
    ]
    lines += [
        f"{who} installed {name} {version} over the preinstalled one (removed)"
        for name, version in found.hiding.items()
    ]
    for name, over in sorted(found.newcomers.items()):
        if over & reinstalled:
            files = ", ".join(sorted(over & reinstalled))
            lines.append(
                f"{who} installed {name} over the files of {files}, which are locked "
                f"(removed, and the files put back); to allow it, set python.packages: [{name}], "
                "and python.prefer to choose between them"
            )
    replaced = {name for names in found.newcomers.values() for name in names}
    patched = {name: found.patched[name] for name in sorted(reinstalled - replaced)}
    if patched:
        lines.append(f"{who} wrote into {_describe_files(patched)} (put back)")
    return lines


def _describe_files(patched: Mapping[str, list[str]]) -> str:
    parts = []
    for name, paths in patched.items():
        more = f" and {len(paths) - FILES_NAMED} more" if len(paths) > FILES_NAMED else ""
        parts.append(f"{', '.join(paths[:FILES_NAMED])}{more} of {name}")
    return "; ".join(parts)
