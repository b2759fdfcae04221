"""Versions of the registry: which one, and its archive as a commit in git's cache."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from ...spec import Archive, Pin
from ..registry import node_archives, version_choice
from ..registry.registry_api import Registry
from ..system.failure import Failure
from ..system.progress import OnProgress
from . import archive_commit, git_cache


@dataclass(frozen=True)
class Obtained:
    """A version of the registry, whose commit is in git's cache when it was resolved now."""

    pin: Pin
    deprecated: bool = False


def resolve(
    registry: Registry, name: str, version: str | None, known: Pin | None, on_progress: OnProgress
) -> Obtained:
    """What the registry offers as this version (None: the newest); `known` if that is the same.

    Raises Failure, with the registry's own words where it refuses the version.
    """
    offered = version_choice.choose(registry, name, version)
    if known and known.archive:
        archive = known.archive
        if (archive.id, archive.version, known.url) == (name, offered.number, offered.url):
            return Obtained(known.model_copy(update={"ref": version}), offered.deprecated)
    got = node_archives.fetch(registry, name, offered, on_progress)
    label = f"{name} {offered.number}"
    commit = git_cache.adopt(
        offered.url, partial(archive_commit.write, archive=got.file, label=label)
    )
    archive = Archive(id=name, version=offered.number, sha256=got.sha256, size=got.size)
    pin = Pin(url=offered.url, ref=version, commit=commit, archive=archive)
    return Obtained(pin, offered.deprecated)


def ensure(registry: Registry, pin: Pin, on_progress: OnProgress) -> None:
    """Have the commit of a locked archive in git's cache. Raises Failure, also when the archive
    isn't the one that was locked."""
    archive = pin.archive
    assert archive is not None
    if git_cache.has(pin.url, pin.commit):
        return
    file = node_archives.locked(registry, pin, archive, on_progress)
    label = f"{archive.id} {archive.version}"
    commit = git_cache.adopt(pin.url, partial(archive_commit.write, archive=file, label=label))
    if commit != pin.commit:
        raise Failure(
            f"{label}: machine.lock names commit {pin.commit[:12]}, and its archive makes "
            f"{commit[:12]}: restore the lock from version control"
        )
