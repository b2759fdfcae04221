"""Classes that no list has, looked for in the source of the repositories that are needed anyway.

Nodes that only the page knows, such as KJNodes' SetNode, are registered by JavaScript: lists of
Python classes lack them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from ..host.repositories import git, git_cache, remotes
from ..host.system.failure import Failure
from ..host.system.progress import ignore_progress
from .gathered import Gathered
from .lists import Say

SOURCES = ("*.js", "*.mjs", "*.ts", "*.py")
QUOTES = "\"'`"


@dataclass(frozen=True)
class Needed:
    """A repository that is needed."""

    repository: str
    """Its key in the catalogue."""
    url: str
    commit: str
    for_all: bool
    """Whether every workflow may use it, not only those with a class of it."""


def settle(found: Gathered, needed: Iterable[Needed], say: Say) -> None:
    """Give unknown classes to the first repository whose source names them."""
    for each in needed:
        package = found.package(each.repository)
        workflows = {name for name, _ in found.unknown if each.for_all}
        workflows |= {name for name, _ in package.found}
        asked = {
            sourced.use.kind
            for name, sourced in found.unknown
            if name in workflows and not sourced.candidates
        }
        if asked:
            say(f"looking in {each.url} for {', '.join(sorted(asked))}")
            found.claim(package, workflows, names_in(each.url, each.commit, asked))


def names_in(url: str, commit: str, kinds: Collection[str]) -> set[str]:
    """Which of these classes the source has in quotes; none where it can't be fetched."""
    try:
        commit = remotes.resolve(url, commit)
        return _quoted(git_cache.fetch(url, commit, ignore_progress), commit, kinds)
    except Failure:
        return set()


def _quoted(cache: Path, commit: str, kinds: Collection[str]) -> set[str]:
    words = [f"{quote}{kind}{quote}" for kind in kinds for quote in QUOTES]
    patterns = [argument for word in words for argument in ("-e", word)]
    try:
        lines = str(git.command(cache).grep("-hoF", *patterns, commit, "--", *SOURCES))
    except git.error_type():
        # 1: it has none of them.
        return set()
    return {line.strip().strip(QUOTES) for line in lines.splitlines()} & {*kinds}
