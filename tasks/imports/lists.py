"""What import looks things up in: repositories of others, fetched, pinned, and kept for later."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..host.repositories import git_cache, remotes
from ..host.system.failure import Failure
from ..spec.lock_format import Pin

Say = Callable[[str], None]


@dataclass(frozen=True)
class Fetched:
    """A repository's files at a commit."""

    folder: Path
    pin: Pin
    unreachable: str = ""
    """Why it couldn't be reached: these are the files of the last time."""


def fetch(url: str, ref: str | None, target: Path, say: Say, pinned: Pin | None = None) -> Fetched:
    """Check a repository out: at the pinned commit, else where the ref is now.

    Where it can't be reached, at the commit of the last time. Raises Failure.
    """
    if pinned and (pinned.url, pinned.ref) == (url, ref):
        say(f"using {url} at {pinned.commit[:12]}, as pinned")
        remotes.checkout(url, pinned.commit, target)
        return Fetched(target, pinned)
    say(f"fetching {url} {ref or ''}".rstrip())
    unreachable = ""
    try:
        commit = remotes.resolve(url, ref)
    except Failure as failure:
        known = git_cache.remembered(url, ref)
        if known is None:
            raise
        commit, unreachable = known, str(failure)
        say(f"{failure}; using what was fetched last, {commit[:12]}")
    remotes.checkout(url, commit, target)
    git_cache.remember(url, ref, commit)
    return Fetched(target, Pin(url=url, ref=ref, commit=commit), unreachable)
