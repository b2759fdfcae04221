"""`doit verify` of environments: hash every file again and compare it with its package."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ..engine.run import Run
from ..host.python import altered_files, bytecode, environments, records, uv
from ..host.python.records import Claims, Wrong
from ..host.storage import digest_folders
from ..host.system import files, process, thread_pool
from ..host.system.failure import Failure
from ..host.system.progress import Progress
from ..lock import packages

READERS = 4
"""Files that are read at once; enough for a fast disk, not too many for a slow one."""
PROGRESS_ITEM = "the Python environments"
"""Their name in the progress."""
Identity = tuple[int, int]
"""Device and inode."""


@dataclass(frozen=True)
class CheckedEnvironment:
    """The result of one environment."""

    folder: Path
    lost: str | None = None
    """What it lacks as a whole."""
    spoilt: tuple[Wrong, ...] = ()
    """Files to repair."""
    rewritten: Mapping[str, altered_files.Rewritten] = field(default_factory=dict)
    """Path → what writes into it at each import; not an error."""
    files: int = 0
    """Number of files that packages list."""

    @property
    def damaged(self) -> bool:
        return bool(self.lost or self.spoilt)


def whole_environments(run: Run) -> list[Path]:
    """The complete environments of the workspace."""
    return [
        path
        for path in digest_folders.list_folders(run.layout.environments)
        if digest_folders.read(path)
    ]


def check(folders: Iterable[Path], progress: Progress) -> list[CheckedEnvironment]:
    """Hash every file of these environments, and a file that several share once."""
    lost = {folder: _lost(folder) for folder in folders}
    every = {
        folder: records.claims(uv.site_packages(folder)) for folder, why in lost.items() if not why
    }
    sizes: dict[Identity, tuple[int, Path]] = {}
    places: dict[Path, dict[str, Identity | None]] = {}
    for folder, claims in every.items():
        site = uv.site_packages(folder)
        places[folder] = {path: _identity(site / path, sizes) for path in claims}
    progress.add(PROGRESS_ITEM, sum(size for size, _ in sizes.values()))
    read = partial(_hash, sizes, progress)
    digests = {
        one: result if isinstance(result, str) else ""
        for one, result in thread_pool.each(read, sizes, READERS)
    }
    progress.end(PROGRESS_ITEM)
    return [
        *(CheckedEnvironment(folder, why) for folder, why in lost.items() if why),
        *(_compare(folder, claims, places[folder], digests) for folder, claims in every.items()),
    ]


def _lost(folder: Path) -> str | None:
    return digest_folders.damaged(folder, digest_folders.read(folder), environments.lost)


def _identity(path: Path, sizes: dict[Identity, tuple[int, Path]]) -> Identity | None:
    try:
        status = path.stat()
    except OSError:
        return None
    one = status.st_dev, status.st_ino
    sizes.setdefault(one, (status.st_size, path))
    return one


def _hash(sizes: Mapping[Identity, tuple[int, Path]], progress: Progress, one: Identity) -> str:
    size, path = sizes[one]
    found = records.digest(path) or ""
    progress.advance(PROGRESS_ITEM, size)
    return found


def _compare(
    folder: Path,
    claims: Claims,
    places: Mapping[str, Identity | None],
    digests: Mapping[Identity, str],
) -> CheckedEnvironment:
    locked = set(digest_folders.read(folder).get("locked", ()))
    rewritten = altered_files.rewritten(folder)
    wrong: list[Wrong] = []
    for path, owners in claims.items():
        one = places[path]
        # A package that isn't locked came with a custom node, which may change it.
        own = {name: digest for name, digest in owners.items() if name in locked}
        wrong += records.judge(path, own, None if one is None else digests[one])
    sizes = environments.record_sizes(digest_folders.read(folder))
    wrong += [
        Wrong(records.name_of(info), f"{info}/RECORD")
        for info in records.damaged(uv.site_packages(folder), sizes)
    ]
    found = {each.path for each in wrong}
    return CheckedEnvironment(
        folder,
        None,
        tuple(each for each in wrong if each.path not in rewritten),
        {path: each for path, each in rewritten.items() if path in found},
        len(claims),
    )


def quick_look(generation: Path) -> str | None:
    """Damage of what a generation runs from, after a start that failed; None: none was found.

    Reads no file but bytecode: 10,000 of these take 4 s.
    """
    home = files.real(generation / "environment")
    try:
        locked = set(digest_folders.read(home).get("locked", ()))
        for wrong in records.of_other_size(uv.site_packages(home), locked):
            return f"{wrong.path} of {wrong.package} isn't what was installed"
    except OSError as error:
        return f"{error.filename} can't be read"
    for path in bytecode.damaged([home, generation / "ComfyUI"]):
        return f"{path} is damaged"
    return None


def repair(run: Run, found: CheckedEnvironment, log: Path) -> list[Wrong]:
    """Reinstall the packages with damaged files; return the files that are still wrong.

    Only for an environment that nothing runs from. Raises Failure.
    """
    folder, paths = found.folder, altered_files.by_package(found.spoilt)
    where = packages.uv_sources(run)
    try:
        uv.install(folder, folder / environments.LIST, *where, log, anew=paths)
        left = environments.heal(folder, folder / environments.LIST, where, paths, log)
    except process.CommandFailed as failed:
        problem = f"{', '.join(sorted(paths))} can't be reinstalled in {folder.name}"
        raise Failure(f"{problem}: {process.last_line(failed.output)}", log) from failed
    altered_files.expect(folder, {}, paths)
    altered_files.note_spoilt(folder, ())
    return left
