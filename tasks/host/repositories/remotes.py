"""Remote repositories: resolve a ref; check out a commit with its submodules and large files."""

from __future__ import annotations

import re
import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..system import files
from ..system.failure import Failure
from ..system.progress import OnProgress, ignore_progress
from ..system.units import size
from . import git, git_cache, git_settings, lfs
from .lfs import Large

if TYPE_CHECKING:
    from git import Git

COMMIT = re.compile(r"[0-9a-f]{40}")
ABBREVIATED = re.compile(r"[0-9a-fA-F]{7,39}")
SSH = re.compile(
    r"(?:ssh|git\+ssh)://(?:[^@/]+@)?(?P<host>[^/:]+)(?::\d+)?/(?P<path>.+)"
    r"|(?:[^@/:]+@)(?P<scp>[^/:]+):/?(?P<path2>.+)"
)


def resolve(url: str, ref: str | None, on_progress: OnProgress = ignore_progress) -> str:
    """The commit that `ref` (a branch, tag or commit; None: the default branch) names now.

    `on_progress` is called while a fetch runs. Raises Failure without the repository or the ref.
    """
    if ref and COMMIT.fullmatch(ref.lower()):
        cache = git_cache.fetch(url, ref.lower(), on_progress)
        # It may be the name of a tag object.
        return str(git.command(cache).rev_parse(f"{ref.lower()}^{{commit}}"))
    revision = ref or "HEAD"
    listing = git_cache.attempt(
        url, lambda: str(git.command().ls_remote("--", url, revision, f"{revision}^{{}}"))
    )
    commits = {name: commit for commit, name in map(str.split, listing.splitlines())}
    for name in (
        f"refs/tags/{revision}^{{}}",
        f"refs/tags/{revision}",
        f"refs/heads/{revision}",
        revision,
    ):
        if name in commits:
            return commits[name]
    if ABBREVIATED.fullmatch(revision):
        return git_cache.resolve_abbreviated(url, revision, on_progress)
    raise Failure(f"{url} has no branch, tag or commit {revision!r}: correct ref")


def checkout(
    url: str,
    commit: str,
    target: Path,
    *,
    recursive: bool = False,
    on_progress: OnProgress = ignore_progress,
) -> Large:
    """Make `target` a detached checkout of `commit` with its own shallow `.git`.

    `on_progress` is called while a fetch runs. The result says which large files are missing.
    Raises Failure and then leaves `target` as it was.
    """
    cache = git_cache.fetch(url, commit, on_progress)
    try:
        with files.staging(target) as staging:
            large = _populate(staging, url, cache, commit, on_progress)
            if recursive:
                large += _checkout_submodules(staging, url, on_progress)
    except git.error_type() as error:
        raise Failure(f"{url}: {git.gist(error)}") from error
    return large


def has_submodules(url: str, commit: str, on_progress: OnProgress = ignore_progress) -> bool:
    """Whether a commit has submodules and a .gitmodules. Raises Failure."""
    listing = git.command(git_cache.fetch(url, commit, on_progress)).ls_tree("-r", "-z", commit)
    entries = str(listing).split("\0")
    has_file = any(entry.endswith("\t.gitmodules") for entry in entries)
    return has_file and any(entry.startswith("160000 ") for entry in entries)


def _populate(folder: Path, url: str, cache: Path, commit: str, on_progress: OnProgress) -> Large:
    """Make `folder` a shallow repository at `commit` from the cache, with `url` as its origin."""
    folder.mkdir(parents=True, exist_ok=True)
    repository = git.command(folder)
    git.init(repository)
    repository.remote("add", "origin", url)
    serving = f"--upload-pack={git_settings.serving()}"
    repository.fetch("--quiet", "--depth=1", "--no-tags", serving, cache.as_uri(), commit)
    repository.checkout("--quiet", "--detach", "FETCH_HEAD")
    return _fetch_large_files(folder, on_progress)


def _fetch_large_files(folder: Path, on_progress: OnProgress) -> Large:
    """Replace Git LFS pointers by their files, if git-lfs is installed.

    A missing file isn't a failure: usually it is an example, and validation shows whether the
    custom node loads without it. Files stay in the cache, so that the next checkout needs no
    network. `git lfs pull` would also store their content in the repository.
    """
    pointers = lfs.pointers(folder, git.tracked(folder))
    storage = git_cache.folder() / "lfs"
    missing, why = lfs.fill_in(storage, folder, pointers), ""
    if missing and shutil.which("git-lfs"):
        on_progress(None, f"git-lfs, {size(sum(pointer.size for pointer in missing.values()))}")
        repository = git.command(folder)
        # As an option, it would also apply to the other repository of a file:// URL.
        repository.config("lfs.storage", str(storage))
        try:
            repository.lfs("fetch", "origin")
        except git.error_type() as error:
            why = f"git-lfs can't fetch them ({git.gist(error)})"
        repository.config("--unset", "lfs.storage")
        files.remove(folder / ".git" / "hooks")
        missing = lfs.fill_in(storage, folder, missing)
        why = why or "git-lfs doesn't fetch them"
    left = {name: pointer.size for name, pointer in missing.items()}
    return Large(len(pointers) - len(left), left, why if left else "")


def _checkout_submodules(checkout: Path, url: str, on_progress: OnProgress) -> Large:
    """Like `git submodule update --init --recursive`, but with the cache.

    git itself resolves relative URLs, against `origin`, and decides which submodules to update. One
    that .gitmodules doesn't name can't be fetched and stays an empty folder.
    """
    large = Large()
    repository = git.command(checkout)
    for path, name, commit in _submodules(repository, checkout):
        repository.submodule("--quiet", "init", "--", path)
        inner = _setting(repository, f"submodule.{name}.url")
        if not inner or _setting(repository, f"submodule.{name}.update") == "none":
            continue
        try:
            reached, cache = _fetch_submodule(inner, commit, on_progress)
        except Failure as failure:
            raise Failure(
                f"submodule {path} of {url}: {failure}; without submodules: recursive: false"
            ) from failure
        large += _populate(checkout / path, reached, cache, commit, on_progress).below(path)
        repository.submodule("absorbgitdirs", "--", path)
        large += _checkout_submodules(checkout / path, reached, on_progress).below(path)
    return large


def _fetch_submodule(url: str, commit: str, on_progress: OnProgress) -> tuple[str, Path]:
    """The URL from which a submodule was fetched, and its cache. Raises Failure.

    An ssh URL needs a key even for a public repository, so https is tried too. The commit is the
    same from either.
    """
    # The repository chose the URL, not the user, so git must not fetch file:// URLs.
    fetch = partial(
        git_cache.fetch, commit=commit, on_progress=on_progress, GIT_PROTOCOL_FROM_USER="0"
    )
    try:
        return url, fetch(url)
    except git_cache.NoSuchCommit as error:
        raise Failure(f"{url} no longer has its commit {commit[:12]}") from error
    except Failure as failure:
        parts = SSH.fullmatch(url)
        if parts is None:
            raise
        https = f"https://{parts['host'] or parts['scp']}/{parts['path'] or parts['path2']}"
        try:
            return https, fetch(https)
        except Failure:
            raise failure from None


def _submodules(repository: Git, checkout: Path) -> list[tuple[str, str, str]]:
    """Path, name and commit of each submodule that .gitmodules names."""
    commits = git.gitlinks(checkout)
    if not commits or not (checkout / ".gitmodules").is_file():
        return []
    which = ("--file", ".gitmodules", "--get-regexp", r"^submodule\..*\.path$")
    try:
        listing = str(repository.config("-z", *which))
    except git.error_type() as error:
        # 1: no such setting.
        if error.status == 1:
            return []
        raise
    names = {}
    for setting in filter(None, listing.split("\0")):
        key, path = setting.split("\n", 1)
        names[path.rstrip("/")] = key.removeprefix("submodule.").removesuffix(".path")
    return [(path, names[path], commits[path]) for path in sorted(commits) if path in names]


def _setting(repository: Git, key: str) -> str:
    return str(repository.config("--default", "", "--get", key))
