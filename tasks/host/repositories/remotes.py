"""Remote repositories: resolve a ref, check out one commit with its submodules and large files."""

from __future__ import annotations

import re
import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..system import files
from ..system.failure import Failure
from ..system.progress import Told, unheard
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


def resolve(url: str, ref: str | None, told: Told = unheard) -> str:
    """The commit that `ref` (a branch, tag or commit; None: the default branch) names now.

    `told` hears how far a fetch is. Raises Failure when the repository or the ref isn't there.
    """
    if ref and COMMIT.fullmatch(ref.lower()):
        # It may be the name of a tag object.
        return str(
            git.command(git_cache.fetch(url, ref.lower(), told)).rev_parse(
                f"{ref.lower()}^{{commit}}"
            )
        )
    wanted = ref or "HEAD"
    listing = git_cache.attempt(
        url, lambda: str(git.command().ls_remote("--", url, wanted, f"{wanted}^{{}}"))
    )
    found = {name: commit for commit, name in map(str.split, listing.splitlines())}
    for name in (f"refs/tags/{wanted}^{{}}", f"refs/tags/{wanted}", f"refs/heads/{wanted}", wanted):
        if name in found:
            return found[name]
    if ABBREVIATED.fullmatch(wanted):
        return git_cache.resolve_abbreviated(url, wanted, told)
    raise Failure(f"{url} has no branch, tag or commit {wanted!r}: correct ref")


def checkout(
    url: str, commit: str, target: Path, *, recursive: bool = False, told: Told = unheard
) -> Large:
    """Make `target` a detached checkout of `commit` with its own shallow `.git`.

    `told` hears how far a fetch is. What comes back says which large files are not there.
    Raises Failure; `target` is then as it was.
    """
    cache = git_cache.fetch(url, commit, told)
    try:
        with files.staging(target) as staging:
            found = _populate(staging, url, cache, commit, told)
            if recursive:
                found += _checkout_submodules(staging, url, told)
    except git.error_type() as error:
        raise Failure(f"{url}: {git.gist(error)}") from error
    return found


def has_submodules(url: str, commit: str, told: Told = unheard) -> bool:
    """Whether a commit has submodules, and names them. Raises Failure."""
    listing = git.command(git_cache.fetch(url, commit, told)).ls_tree("-r", "-z", commit)
    entries = str(listing).split("\0")
    named = any(entry.endswith("\t.gitmodules") for entry in entries)
    return named and any(entry.startswith("160000 ") for entry in entries)


def _populate(folder: Path, url: str, cache: Path, commit: str, told: Told) -> Large:
    """Make `folder` a shallow repository at `commit`, from the cache, whose origin is `url`."""
    folder.mkdir(parents=True, exist_ok=True)
    repository = git.command(folder)
    git.init(repository)
    repository.remote("add", "origin", url)
    serving = f"--upload-pack={git_settings.serving()}"
    repository.fetch("--quiet", "--depth=1", "--no-tags", serving, cache.as_uri(), commit)
    repository.checkout("--quiet", "--detach", "FETCH_HEAD")
    return _fill_in(folder, told)


def _fill_in(folder: Path, told: Told) -> Large:
    """Have git-lfs, where it is there, bring the files of which the repository has pointers.

    What can't be had is no failure: most often only examples are missing, and the proof of the
    custom node says whether it loads without. Files stay in the cache, so that the next checkout
    needs no network. `git lfs pull` would put their content into the repository as well.
    """
    wanted = lfs.pointers(folder, git.tracked(folder))
    storage = git_cache.folder() / "lfs"
    away, why = lfs.put(storage, folder, wanted), ""
    if away and shutil.which("git-lfs"):
        told(None, f"git-lfs, {size(sum(pointer.size for pointer in away.values()))}")
        repository = git.command(folder)
        # Given as an option, it would be taken for the other side's as well with a file:// URL.
        repository.config("lfs.storage", str(storage))
        try:
            repository.lfs("fetch", "origin")
        except git.error_type() as error:
            why = f"git-lfs can't fetch them ({git.gist(error)})"
        repository.config("--unset", "lfs.storage")
        files.remove(folder / ".git" / "hooks")
        away = lfs.put(storage, folder, away)
        why = why or "git-lfs doesn't fetch them"
    left = {name: pointer.size for name, pointer in away.items()}
    return Large(len(wanted) - len(left), left, why if left else "")


def _checkout_submodules(checkout: Path, url: str, told: Told) -> Large:
    """Do what `git submodule update --init --recursive` does, through the cache.

    git itself resolves relative URLs, against `origin`, and says which submodules are wanted. One
    that .gitmodules doesn't name can be had by nobody, and stays an empty folder.
    """
    found = Large()
    repository = git.command(checkout)
    for path, name, commit in _submodules(repository, checkout):
        repository.submodule("--quiet", "init", "--", path)
        inner = _setting(repository, f"submodule.{name}.url")
        if not inner or _setting(repository, f"submodule.{name}.update") == "none":
            continue
        try:
            reached, cache = _fetch_submodule(inner, commit, told)
        except Failure as failure:
            raise Failure(
                f"submodule {path} of {url}: {failure}; without submodules: recursive: false"
            ) from failure
        found += _populate(checkout / path, reached, cache, commit, told).below(path)
        repository.submodule("absorbgitdirs", "--", path)
        found += _checkout_submodules(checkout / path, reached, told).below(path)
    return found


def _fetch_submodule(url: str, commit: str, told: Told) -> tuple[str, Path]:
    """The URL at which a submodule was reached, and its cache. Raises Failure.

    An ssh URL needs a key even for what everybody may read, so https is tried as well: the commit
    is the same wherever it comes from.
    """
    # The URL is the repository's choice, not the user's: git fetches no file:// then.
    fetch = partial(git_cache.fetch, commit=commit, told=told, GIT_PROTOCOL_FROM_USER="0")
    try:
        return url, fetch(url)
    except git_cache.NoSuchCommit as gone:
        raise Failure(f"{url} no longer has its commit {commit[:12]}") from gone
    except Failure as failure:
        open_to_all = _over_https(url)
        if open_to_all is None:
            raise
        try:
            return open_to_all, fetch(open_to_all)
        except Failure:
            raise failure from None


def _over_https(url: str) -> str | None:
    """The https URL of what an ssh URL names (git@host:path, ssh://git@host/path)."""
    found = SSH.fullmatch(url)
    return (
        f"https://{found['host'] or found['scp']}/{found['path'] or found['path2']}"
        if found
        else None
    )


def _submodules(repository: Git, checkout: Path) -> list[tuple[str, str, str]]:
    """Path, name and commit of each submodule that the checked out commit has, and names."""
    commits = git.gitlinks(checkout)
    if not commits or not (checkout / ".gitmodules").is_file():
        return []
    which = ("--file", ".gitmodules", "--get-regexp", r"^submodule\..*\.path$")
    try:
        listing = str(repository.config("-z", *which))
    except git.error_type() as error:
        # 1: it names none.
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
