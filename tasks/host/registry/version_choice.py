"""Which version of a custom node the registry offers, or why none."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from ...spec.problems import did_you_mean
from ..system.failure import Failure
from .registry_api import Node, Registry, Version

if TYPE_CHECKING:
    from packaging.version import Version as Number

SEARCHES = 3
"""For a node that isn't there."""


def choose(registry: Registry, name: str, number: str | None) -> Version:
    """The version `number` of a custom node; without one, the newest that is active.

    Raises Failure for a node or version that the registry hasn't, or doesn't let be installed.
    """
    node = registry.node(name)
    if node is None:
        raise Failure(f"the registry has no custom node {name}{_meant(registry, name)}")
    if node.refused:
        raise Failure(
            f"the registry has {node.refused} {name}{quoted(node)}: remove it, or name another node"
        )
    version = registry.version(name, number) if number else _newest(registry, name)
    if version is None:
        raise Failure(
            f"the registry has no version {number} of {name}: name another{_other(registry, name)}"
        )
    if not version.is_active:
        raise Failure(
            f"the registry says that {name} {version.number} is {version.state}{quoted(version)}: "
            f"name another version{_other(registry, name)}"
        )
    if not version.url:
        raise Failure(f"the registry has no archive of {name} {version.number}: name another")
    return version


def quoted(found: Node | Version) -> str:
    """The registry's own words, in brackets; empty without."""
    return f' ("{found.words}")' if found.words else ""


def newest(versions: Iterable[Version]) -> Version | None:
    """The newest active version: a release before a pre-release, a deprecated one last.

    The registry's own `latest_version` is the last by the letters of its number, in which 8.9.0
    comes after 8.22.0 (`GetLatestNodeVersion` in its registry_svc.go).
    """
    active = [each for each in versions if each.is_active]
    return max(active, key=lambda each: (not each.deprecated, _order(each.number)), default=None)


def _order(number: str) -> tuple[bool, Number]:
    from packaging.version import InvalidVersion
    from packaging.version import Version as Number

    try:
        order = Number(number)
    except InvalidVersion:
        return False, Number("0")
    return not order.is_prerelease, order


def _newest(registry: Registry, name: str) -> Version:
    versions = registry.versions(name)
    if found := newest(versions):
        return found
    if not versions:
        raise Failure(f"the registry has no version of {name}: give its repository as url:")
    last = max(versions, key=lambda each: _order(each.number))
    raise Failure(
        f"the registry has no active version of {name}: {last.number} is {last.state}{quoted(last)}"
    )


def _other(registry: Registry, name: str) -> str:
    found = newest(registry.versions(name))
    return f", such as {found.number}" if found else ""


def _meant(registry: Registry, name: str) -> str:
    """What a node that isn't there may have been meant to be."""
    ids: set[str] = set()
    # A search that fails leaves only the hint out.
    with contextlib.suppress(Failure):
        for words in _searches(name):
            ids.update(each.id for each in registry.search(words))
    return did_you_mean(name, sorted(ids)) or ": correct id"


def _searches(name: str) -> Iterator[str]:
    """The id, and its longest words: a search finds no near misses."""
    parts = [part for part in re.split(r"[._-]+", name) if part.lower() != "comfyui"]
    yield from dict.fromkeys([name, *sorted(parts, key=len, reverse=True)][:SEARCHES])
