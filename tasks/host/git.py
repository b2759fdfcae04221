"""Repositories: resolve a ref, fetch one commit, check it out, see what was edited.

Fetches are shallow and by commit, with a full fetch as the fallback; a bare cache of the
user's (`$XDG_CACHE_HOME/comfy-machine/git`) serves every workspace and works offline.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from tasks.host import files, locks
from tasks.host.failure import Failure

if TYPE_CHECKING:
    from git import Git, GitCommandError

T = TypeVar("T")

COMMIT = re.compile(r"[0-9a-f]{40}")
ABBREVIATED = re.compile(r"[0-9a-fA-F]{7,39}")
ATTEMPTS = 3

#: git must never ask a question nobody sees, and must give up on a line that went silent.
ENVIRONMENT = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_HTTP_LOW_SPEED_LIMIT": "1000",
    "GIT_HTTP_LOW_SPEED_TIME": "30",
    "LC_ALL": "C",
}
PRIVATE = re.compile(
    r"could not read Username|Authentication failed|Permission denied|error: 403", re.I
)
ABSENT = re.compile(r"not found|does not exist|does not appear to be a git repository", re.I)
TRANSIENT = re.compile(
    r"could not resolve host|timed out|timeout|connection (reset|refused)|early EOF"
    r"|unexpected disconnect|HTTP 5\d\d|error: 5\d\d|RPC failed|Operation too slow",
    re.I,
)


def cache_folder() -> Path:
    """Where bare repositories are kept, for all workspaces of this user."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "comfy-machine" / "git"


def head(checkout: Path) -> str | None:
    """The commit that a checkout's HEAD names, read from its files; None if there is none.

    A hundred times faster than asking git, and this runs for every checkout on every run.
    """
    folder = checkout / ".git"
    try:
        text = (folder / "HEAD").read_text().strip()
        if not text.startswith("ref: "):
            return text
        ref = text.removeprefix("ref: ")
        if (folder / ref).is_file():
            return (folder / ref).read_text().strip()
        for line in (folder / "packed-refs").read_text().splitlines():
            if line.endswith(f" {ref}"):
                return line.split()[0]
    except OSError:
        pass
    return None


def resolve(url: str, ref: str | None) -> str:
    """The commit that `ref` (a branch, tag or commit; None: the default branch) names now.

    Raises Failure when the repository or the ref isn't there.
    """
    if ref and COMMIT.fullmatch(ref):
        return ref
    wanted = ref or "HEAD"
    listing = _attempt(url, lambda: str(_git().ls_remote("--", url, wanted, f"{wanted}^{{}}")))
    found = {name: commit for commit, name in map(str.split, listing.splitlines())}
    for name in (f"refs/tags/{wanted}^{{}}", f"refs/tags/{wanted}", f"refs/heads/{wanted}", wanted):
        if name in found:
            return found[name]
    if ABBREVIATED.fullmatch(wanted):
        return _resolve_abbreviated(url, wanted)
    raise Failure(f"{url} has no branch, tag or commit {wanted!r}: correct ref")


def checkout(url: str, commit: str, target: Path, *, recursive: bool = False) -> None:
    """Make `target` a detached checkout of `commit` with its own shallow `.git`.

    Raises Failure; `target` is then gone again.
    """
    cache = _fetch(url, commit)
    files.remove(target)
    target.mkdir(parents=True)
    try:
        git = _git(target)
        git.init("--quiet")
        git.remote("add", "origin", url)
        git.fetch("--quiet", "--depth=1", "--no-tags", cache.as_uri(), commit)
        git.checkout("--quiet", "--detach", "FETCH_HEAD")
        if recursive:
            _attempt(
                url,
                lambda: git.submodule("update", "--init", "--recursive", "--depth=1", "--quiet"),
            )
    except BaseException as error:
        files.remove(target)
        if isinstance(error, _command_error()):
            raise Failure(f"{url}: {_gist(error)}") from error
        raise


def snapshot(folder: Path) -> str:
    """Make `folder`, which is no repository, one with a single commit of all its files.

    Author and date are fixed, so equal content gives an equal commit.
    """
    git = _git(folder)
    git.init("--quiet")
    git.add("--all", "--force")
    who = ("comfy-machine", "comfy-machine@localhost", "2000-01-01T00:00:00Z")
    keys = ("NAME", "EMAIL", "DATE")
    identity = {
        f"GIT_{role}_{key}": value
        for role in ("AUTHOR", "COMMITTER")
        for key, value in zip(keys, who, strict=True)
    }
    git.update_environment(**identity)
    git.execute(
        ["git", "-c", "commit.gpgsign=false", "commit", "-q", "--no-verify", "-m", "content"]
    )
    return str(git.rev_parse("HEAD"))


def tracked(checkout: Path) -> list[str]:
    """The files that git tracks, relative to the checkout; submodules' included."""
    return _names(_git(checkout).ls_files("-z", "--recurse-submodules"))


def untracked(checkout: Path) -> list[str]:
    """Files that git doesn't track, ignored ones included; nested repositories end in `/`."""
    return _names(_git(checkout).ls_files("-z", "--others"))


def edited(checkout: Path) -> list[str]:
    """Tracked files whose content differs from HEAD; a deleted one holds nothing to lose.

    `models/` is left out: in a generation it is a link.
    """
    return _names(
        _git(checkout).diff("HEAD", "-z", "--name-only", "--diff-filter=d", "--", ".", ":!models")
    )


def _names(listing: str) -> list[str]:
    return [name for name in listing.split("\0") if name]


_importing = threading.Lock()


def _git(folder: Path | None = None) -> Git:
    # GitPython looks for git at the end of its import; another thread must not use it before.
    with _importing:
        from git import Git

    git = Git(str(folder) if folder else None)
    git.update_environment(**ENVIRONMENT)
    if "GIT_SSH_COMMAND" not in os.environ:
        git.update_environment(GIT_SSH_COMMAND="ssh -o BatchMode=yes")
    return git


def _command_error() -> type[GitCommandError]:
    with _importing:
        from git import GitCommandError

    return GitCommandError


def _gist(error: BaseException) -> str:
    """The line of git's error output that says what was wrong."""
    text = str(getattr(error, "stderr", "") or error)
    lines = [line.strip(" '\n") for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if line.startswith(("fatal:", "error:", "remote:"))]
    return (telling or lines or ["git failed"])[-1]


def _attempt(url: str, action: Callable[[], T]) -> T:
    """Do what talks to a remote; what may pass is tried again, the rest becomes a Failure."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return action()
        except _command_error() as error:
            text = str(error.stderr)
            if TRANSIENT.search(text) and attempt < ATTEMPTS:
                time.sleep(attempt)
                continue
            if PRIVATE.search(text):
                raise Failure(
                    f"{url} isn't there, or it is private: correct the url, or give git "
                    "credentials for it (git config credential.helper, or an ssh key)"
                ) from error
            if ABSENT.search(text):
                raise Failure(f"{url} isn't there: correct the url ({_gist(error)})") from error
            raise Failure(f"{url} can't be fetched: {_gist(error)}") from error
    raise AssertionError("unreachable")


def _cache(url: str) -> Path:
    name = re.sub(r"[^\w.-]", "_", url.rstrip("/").rsplit("/", 1)[-1].removesuffix(".git"))
    return cache_folder() / f"{name}-{files.digest(url)}.git"


def _fetch(url: str, commit: str) -> Path:
    """Bring `commit` into the cache, unless it is there; return the cache's repository."""
    cache = _cache(url)
    with locks.exclusive(cache.with_suffix(".lock")):
        git = _open_cache(cache)
        if _has(git, commit):
            return cache
        try:
            _attempt(url, lambda: git.fetch("--quiet", "--depth=1", "--no-tags", "--", url, commit))
        except Failure:
            _fetch_all(git, url)
        if not _has(git, commit):
            raise Failure(f"{url} has no commit {commit}: correct ref")
        git.update_ref(f"refs/comfy-machine/{commit}", commit)
    return cache


def _open_cache(cache: Path) -> Git:
    if not (cache / "HEAD").is_file():
        files.remove(cache)
        cache.mkdir(parents=True)
        _git(cache).init("--quiet", "--bare")
    git = _git(cache)
    git.config("uploadpack.allowAnySHA1InWant", "true")
    return git


def _fetch_all(git: Git, url: str) -> None:
    """Every branch and tag with history: for servers that serve no single commit."""
    deepen = ["--unshallow"] if git.rev_parse("--is-shallow-repository") == "true" else []
    heads_and_tags = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"]
    _attempt(
        url, lambda: git.fetch("--quiet", "--force", "--prune", *deepen, "--", url, *heads_and_tags)
    )


def _resolve_abbreviated(url: str, ref: str) -> str:
    cache = _cache(url)
    with locks.exclusive(cache.with_suffix(".lock")):
        git = _open_cache(cache)
        _fetch_all(git, url)
        try:
            return str(git.rev_parse("--verify", "--quiet", f"{ref}^{{commit}}"))
        except _command_error():
            raise Failure(f"{url} has no branch, tag or commit {ref!r}: correct ref") from None


def _has(git: Git, commit: str) -> bool:
    try:
        git.cat_file("-e", f"{commit}^{{commit}}")
    except _command_error():
        return False
    return True
