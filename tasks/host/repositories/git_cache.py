"""The user's cache of bare repositories (`$XDG_CACHE_HOME/comfy-machine/git`).

A fetched commit is available to every workspace, also offline. Fetches are shallow and by commit;
a full fetch is the fallback.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import unquote

from ..system import files, locks, user_cache
from ..system.failure import Failure
from ..system.progress import OnProgress
from ..system.retries import Retries
from . import git

if TYPE_CHECKING:
    from git import Git

T = TypeVar("T")

RETRIES = Retries(attempts=3)
PRIVATE = re.compile(
    r"could not read (Username|Password)|Authentication failed|Permission denied|error: 403", re.I
)
ABSENT = re.compile(r"not found|does not exist|does not appear to be a git repository", re.I)
TRANSIENT = re.compile(
    r"could not resolve host|timed out|timeout|connection (reset|refused)|early EOF"
    r"|unexpected disconnect|HTTP 5\d\d|error: 5\d\d|RPC failed|Operation too slow",
    re.I,
)


class NoSuchCommit(Failure):
    """The repository exists, but not this commit."""


def folder() -> Path:
    """The cache of all workspaces of this user."""
    return user_cache.folder() / "git"


def attempt(url: str, action: Callable[[], T]) -> T:
    """Call `action`, which uses a remote. Retries transient errors; raises Failure for others."""
    for failed in count(1):
        try:
            return action()
        except git.error_type() as error:
            text = str(error.stderr)
            if TRANSIENT.search(text) and RETRIES.pause(failed):
                continue
            if PRIVATE.search(text):
                raise Failure(
                    f"{url} isn't there, or it is private: correct the url, or give git "
                    "credentials for it (git config credential.helper, or an ssh key)"
                ) from error
            if ABSENT.search(text):
                raise Failure(f"{url} isn't there: correct the url ({git.gist(error)})") from error
            local = Path(unquote(url.removeprefix("file://")))
            if url.startswith("file://") and (whose := git.owner(local)):
                raise Failure(
                    f"{url} can't be fetched, {whose}: git config --global --add safe.directory "
                    f"{local}"
                ) from error
            raise Failure(
                f"{url} can't be fetched ({git.gist(error)}): see that the url is right and "
                "that its host can be reached"
            ) from error
    raise AssertionError("unreachable")


def _place(url: str) -> Path:
    name = re.sub(r"[^\w.-]", "_", url.rstrip("/").rsplit("/", 1)[-1].removesuffix(".git"))
    return folder() / f"{name}-{files.digest(url)}.git"


def fetch(url: str, commit: str, on_progress: OnProgress, **environment: str) -> Path:
    """Fetch `commit` into the cache unless it has it; return the bare repository.

    `environment` holds more variables for git. Raises Failure.
    """
    cache = _place(url)
    with locks.exclusive(cache.with_suffix(".lock")):
        repository = _open_cache(cache)
        repository.update_environment(**environment)
        if _has(repository, commit):
            return cache
        try:
            _fetch(repository, url, on_progress, ["--depth=1", "--no-tags"], [commit])
        except Failure:
            _fetch_all(repository, url, on_progress)
        if not _has(repository, commit):
            raise NoSuchCommit(f"{url} has no commit {commit}: correct ref")
        repository.update_ref(f"refs/comfy-machine/{commit}", commit)
    return cache


def remember(url: str, ref: str | None, commit: str) -> None:
    """Note what a ref named, for when the remote can't be reached. The cache has the commit."""
    cache = _place(url)
    with locks.exclusive(cache.with_suffix(".lock")):
        git.command(cache).update_ref(_name(ref), commit)


def remembered(url: str, ref: str | None) -> str | None:
    """The commit that `remember` noted last; None: it never did."""
    cache = _place(url)
    if not cache.is_dir():
        return None
    try:
        return str(git.command(cache).rev_parse("--verify", "--quiet", _name(ref)))
    except git.error_type():
        return None


def _name(ref: str | None) -> str:
    return f"refs/comfy-machine-names/{files.digest(ref or '')}"


def adopt(url: str, write: Callable[[Git], str]) -> str:
    """The commit that `write` makes in the cache of `url`, which `fetch` then finds there."""
    cache = _place(url)
    with locks.exclusive(cache.with_suffix(".lock")):
        repository = _open_cache(cache)
        commit = write(repository)
        repository.update_ref(f"refs/comfy-machine/{commit}", commit)
    return commit


def has(url: str, commit: str) -> bool:
    """Whether the cache of `url` has this commit."""
    cache = _place(url)
    return cache.is_dir() and _has(git.command(cache), commit)


def _open_cache(cache: Path) -> Git:
    """The bare repository, created if it is missing or damaged; the caller holds its lock."""
    for stale in cache.rglob("*.lock"):
        stale.unlink()
    try:
        repository = git.command(cache)
        if repository.rev_parse("--is-bare-repository") == "true":
            return repository
    except (Failure, git.error_type()):
        pass
    files.remove(cache)
    cache.mkdir(parents=True)
    repository = git.command(cache)
    git.init(repository, "--bare")
    repository.config("uploadpack.allowAnySHA1InWant", "true")
    return repository


def _fetch_all(repository: Git, url: str, on_progress: OnProgress) -> None:
    """Fetch all branches and tags with history, for servers that don't serve single commits."""
    deepen = ["--unshallow"] if repository.rev_parse("--is-shallow-repository") == "true" else []
    heads_and_tags = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"]
    _fetch(repository, url, on_progress, ["--force", "--prune", *deepen], heads_and_tags)


def _fetch(
    repository: Git, url: str, on_progress: OnProgress, options: list[str], refs: list[str]
) -> None:
    words = [*options, "--", url, *refs]
    attempt(url, lambda: git.fetch(repository, *words, on_progress=on_progress))


def resolve_abbreviated(url: str, ref: str, on_progress: OnProgress) -> str:
    """The commit that an abbreviated one names. Raises Failure."""
    cache = _place(url)
    with locks.exclusive(cache.with_suffix(".lock")):
        repository = _open_cache(cache)
        _fetch_all(repository, url, on_progress)
        try:
            return str(repository.rev_parse("--verify", "--quiet", f"{ref}^{{commit}}"))
        except git.error_type():
            raise Failure(f"{url} has no branch, tag or commit {ref!r}: correct ref") from None


def _has(repository: Git, commit: str) -> bool:
    try:
        repository.cat_file("-e", f"{commit}^{{commit}}")
    except git.error_type():
        return False
    return True
