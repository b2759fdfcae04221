"""Remote repositories: resolve a ref, fetch one commit, check it out.

Fetches are shallow and by commit, with a full fetch as the fallback; a bare cache of the
user's (`$XDG_CACHE_HOME/comfy-machine/git`) serves every workspace and works offline.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from tasks.host import files, git, locks
from tasks.host.failure import Failure
from tasks.host.progress import Told, unheard

if TYPE_CHECKING:
    from git import Git

T = TypeVar("T")

COMMIT = re.compile(r"[0-9a-f]{40}")
ABBREVIATED = re.compile(r"[0-9a-fA-F]{7,39}")
ATTEMPTS = 3
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
    """The repository is there and doesn't have this commit."""


def cache_folder() -> Path:
    """Where bare repositories are kept, for all workspaces of this user."""
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # The XDG specification wants a relative one ignored.
    root = named if named.is_absolute() else Path.home() / ".cache"
    return root / "comfy-machine" / "git"


def resolve(url: str, ref: str | None, told: Told = unheard) -> str:
    """The commit that `ref` (a branch, tag or commit; None: the default branch) names now.

    `told` hears how far a fetch is. Raises Failure when the repository or the ref isn't there.
    """
    if ref and COMMIT.fullmatch(ref.lower()):
        # It may be the name of a tag object.
        return str(
            git.command(_fetch(url, ref.lower(), told)).rev_parse(f"{ref.lower()}^{{commit}}")
        )
    wanted = ref or "HEAD"
    listing = _attempt(
        url, lambda: str(git.command().ls_remote("--", url, wanted, f"{wanted}^{{}}"))
    )
    found = {name: commit for commit, name in map(str.split, listing.splitlines())}
    for name in (f"refs/tags/{wanted}^{{}}", f"refs/tags/{wanted}", f"refs/heads/{wanted}", wanted):
        if name in found:
            return found[name]
    if ABBREVIATED.fullmatch(wanted):
        return _resolve_abbreviated(url, wanted, told)
    raise Failure(f"{url} has no branch, tag or commit {wanted!r}: correct ref")


def checkout(
    url: str, commit: str, target: Path, *, recursive: bool = False, told: Told = unheard
) -> None:
    """Make `target` a detached checkout of `commit` with its own shallow `.git`.

    `told` hears how far a fetch is. Raises Failure; `target` is then gone again.
    """
    cache = _fetch(url, commit, told)
    staging = target.with_name(f".{target.name}.part")
    files.remove(staging)
    try:
        _populate(staging, url, cache, commit)
        if recursive:
            _checkout_submodules(staging, url, told)
    except BaseException as error:
        files.remove(staging)
        if isinstance(error, git.error_type()):
            raise Failure(f"{url}: {git.gist(error)}") from error
        raise
    files.remove(target)
    staging.replace(target)


def _populate(folder: Path, url: str, cache: Path, commit: str) -> None:
    """Make `folder` a shallow repository at `commit`, from the cache, whose origin is `url`."""
    folder.mkdir(parents=True, exist_ok=True)
    repository = git.command(folder)
    repository.init("--quiet")
    repository.remote("add", "origin", url)
    repository.fetch("--quiet", "--depth=1", "--no-tags", cache.as_uri(), commit)
    repository.checkout("--quiet", "--detach", "FETCH_HEAD")


def _checkout_submodules(checkout: Path, url: str, told: Told) -> None:
    """Do what `git submodule update --init --recursive` does, through the cache.

    git itself resolves relative URLs, against `origin`, and says which submodules are wanted.
    """
    repository = git.command(checkout)
    repository.submodule("--quiet", "init")
    for path, name, commit in _submodules(repository):
        inner = _setting(repository, f"submodule.{name}.url")
        if not inner or _setting(repository, f"submodule.{name}.update") == "none":
            continue
        try:
            # The URL is the repository's choice, not the user's: git fetches no file:// then.
            cache = _fetch(inner, commit, told, GIT_PROTOCOL_FROM_USER="0")
        except Failure as failure:
            raise Failure(
                f"submodule {path} of {url}: {failure}; without submodules: recursive: false"
            ) from failure
        _populate(checkout / path, inner, cache, commit)
        repository.submodule("absorbgitdirs", "--", path)
        _checkout_submodules(checkout / path, inner, told)


def _submodules(repository: Git) -> list[tuple[str, str, str]]:
    """Path, name and commit of each submodule that the checked out commit has."""
    commits = {}
    for entry in str(repository.ls_files("-z", "--stage")).split("\0"):
        # mode 160000, a commit of another repository
        if entry.startswith("160000 "):
            about, path = entry.split("\t", 1)
            commits[path] = about.split()[1]
    if not commits:
        return []
    which = ("--file", ".gitmodules", "--get-regexp", r"^submodule\..*\.path$")
    names = {}
    for setting in filter(None, str(repository.config("-z", *which)).split("\0")):
        key, path = setting.split("\n", 1)
        names[path.rstrip("/")] = key.removeprefix("submodule.").removesuffix(".path")
    return [(path, names[path], commit) for path, commit in sorted(commits.items())]


def _setting(repository: Git, key: str) -> str:
    return str(repository.config("--default", "", "--get", key))


def _attempt(url: str, action: Callable[[], T]) -> T:
    """Do what talks to a remote; what may pass is tried again, the rest becomes a Failure."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return action()
        except git.error_type() as error:
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
                raise Failure(f"{url} isn't there: correct the url ({git.gist(error)})") from error
            raise Failure(
                f"{url} can't be fetched ({git.gist(error)}): see that the url is right and "
                "that its host can be reached"
            ) from error
    raise AssertionError("unreachable")


def _cache(url: str) -> Path:
    name = re.sub(r"[^\w.-]", "_", url.rstrip("/").rsplit("/", 1)[-1].removesuffix(".git"))
    return cache_folder() / f"{name}-{files.digest(url)}.git"


def _fetch(url: str, commit: str, told: Told, **environment: str) -> Path:
    """Bring `commit` into the cache, unless it is there; return the cache's repository.

    `environment` holds further variables for git. Raises Failure.
    """
    cache = _cache(url)
    with locks.exclusive(cache.with_suffix(".lock")):
        repository = _open_cache(cache)
        repository.update_environment(**environment)
        if _has(repository, commit):
            return cache
        try:
            _attempt(
                url,
                lambda: git.fetch(
                    repository, "--depth=1", "--no-tags", "--", url, commit, told=told
                ),
            )
        except Failure:
            _fetch_all(repository, url, told)
        if not _has(repository, commit):
            raise NoSuchCommit(f"{url} has no commit {commit}: correct ref")
        repository.update_ref(f"refs/comfy-machine/{commit}", commit)
    return cache


def _open_cache(cache: Path) -> Git:
    """The cache's repository, made anew when it is damaged; the caller holds its lock."""
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
    repository.init("--quiet", "--bare")
    repository.config("uploadpack.allowAnySHA1InWant", "true")
    return repository


def _fetch_all(repository: Git, url: str, told: Told) -> None:
    """Every branch and tag with history: for servers that serve no single commit."""
    deepen = ["--unshallow"] if repository.rev_parse("--is-shallow-repository") == "true" else []
    heads_and_tags = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"]
    _attempt(
        url,
        lambda: git.fetch(
            repository, "--force", "--prune", *deepen, "--", url, *heads_and_tags, told=told
        ),
    )


def _resolve_abbreviated(url: str, ref: str, told: Told) -> str:
    cache = _cache(url)
    with locks.exclusive(cache.with_suffix(".lock")):
        repository = _open_cache(cache)
        _fetch_all(repository, url, told)
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
