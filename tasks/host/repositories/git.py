"""The git command, set up to be non-interactive and repeatable, and queries of a checkout."""

from __future__ import annotations

import configparser
import io
import os
import re
import tempfile
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..system import process
from ..system.failure import Failure
from ..system.program_files import PROGRAM
from ..system.progress import OnProgress
from ..system.redaction import redact
from . import git_settings, lfs

if TYPE_CHECKING:
    from git import Git, GitCommandError

#: git must not prompt, and must give up on a stalled connection.
ENVIRONMENT = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_HTTP_LOW_SPEED_LIMIT": "1000",
    "GIT_HTTP_LOW_SPEED_TIME": "30",
    "LC_ALL": "C",
}
#: Variables that git hooks and `git rebase --exec` set. They would redirect our commands to the
#: caller's repository (`git rev-parse --local-env-vars`).
LOCAL_VARIABLES = (
    "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_CONFIG", "GIT_OBJECT_DIRECTORY", "GIT_DIR",
    "GIT_WORK_TREE", "GIT_IMPLICIT_WORK_TREE", "GIT_GRAFT_FILE", "GIT_INDEX_FILE",
    "GIT_NO_REPLACE_OBJECTS", "GIT_REPLACE_REF_BASE", "GIT_PREFIX", "GIT_SHALLOW_FILE",
    "GIT_COMMON_DIR", "GIT_NAMESPACE",
)  # fmt: skip
SNAPSHOTS = "comfy-machine@localhost"
"""The author of our own commits, of local folders and of archives."""
SNAPSHOT_TIME = 946684800
"""Their date, 2000-01-01, in seconds since the epoch."""
GITMODULES_PATH = re.compile(r'^\s*path\s*=\s*"?(.+?)"?\s*$', re.M)
PROGRESS = re.compile(r"(?:remote: )?([A-Z][a-z]+ \w+): +(?:(\d+)% \(\d+/\d+\)|\d+)(.*)")
SHARES = {"Receiving objects": (0.0, 0.9), "Resolving deltas": (90.0, 0.1)}
"""Step of a fetch → percent of the fetch at its start, and per percent of the step."""


def forget_the_callers_repository() -> None:
    """Remove variables from this process's environment that select a repository or enable traces.

    A trace contains the credentials of URLs, and would be mistaken for git's error output.
    """
    for name in list(os.environ):
        if name in LOCAL_VARIABLES or name.startswith(process.TRACES):
            del os.environ[name]


def head(checkout: Path) -> str | None:
    """The commit of a checkout's HEAD, read from its files; None without one.

    This runs for every checkout on every run, and is a hundred times faster than git.
    """
    folder = checkout / ".git"
    try:
        # Reading a pipe, which somebody may have put there, never ends.
        if not (folder / "HEAD").is_file():
            return None
        text = (folder / "HEAD").read_text().strip()
        if not text.startswith("ref: "):
            return text
        ref = text.removeprefix("ref: ")
        if (folder / ref).is_file():
            return (folder / ref).read_text().strip()
        for line in (folder / "packed-refs").read_text().splitlines():
            if line.endswith(f" {ref}"):
                return line.split()[0]
    except (OSError, ValueError):
        pass
    return None


def origin(checkout: Path) -> str | None:
    """Where a checkout was cloned from, read from its files; None: it names no such place."""
    config = configparser.ConfigParser(strict=False, interpolation=None)
    try:
        config.read(checkout / ".git" / "config", encoding="utf-8")
        return config.get('remote "origin"', "url")
    except (configparser.Error, OSError, ValueError):
        return None


def init(repository: Git, *arguments: str) -> None:
    """`git init` without the user's template, which may have hooks."""
    repository.init("--quiet", "--template=", *arguments)


def snapshot(folder: Path) -> str:
    """Make `folder` a repository with one commit of all its files; return the commit.

    Author and date are fixed, so the same content gives the same commit.
    """
    git = command(folder)
    init(git)
    git.add("--all", "--force")
    identity = {
        "NAME": "comfy-machine",
        "EMAIL": SNAPSHOTS,
        "DATE": f"{SNAPSHOT_TIME} +0000",
    }
    for role in ("AUTHOR", "COMMITTER"):
        git.update_environment(**{f"GIT_{role}_{key}": text for key, text in identity.items()})
    # One commit needs no maintenance.
    prepared = git(c="maintenance.auto=false")
    prepared.commit("-q", "--no-verify", "-m", "content")
    return str(git.rev_parse("HEAD"))


def tracked(checkout: Path) -> list[str]:
    """Tracked files, relative to the checkout; includes submodules."""
    return _ask(checkout, "ls_files", "-z", "--recurse-submodules")


def untracked(checkout: Path) -> list[str]:
    """Untracked files, including ignored ones; nested repositories end in `/`."""
    return _ask(checkout, "ls_files", "-z", "--others")


def ignored(checkout: Path) -> list[str]:
    """The patterns that git ignores in only this checkout."""
    try:
        return (checkout / ".git" / "info" / "exclude").read_text().splitlines()
    except OSError:
        return []


def ignore(checkout: Path, pattern: str) -> None:
    """Make git ignore a pattern (as in .gitignore) in only this checkout."""
    file = checkout / ".git" / "info" / "exclude"
    file.parent.mkdir(exist_ok=True)
    with file.open("a") as exclude:
        exclude.write(f"\n{pattern}\n")


def commit_date(checkout: Path) -> str:
    """The day of a checkout's commit, 2026-11-29; empty if git can't tell, or for a snapshot."""
    try:
        day, _, author = str(command(checkout).log("-1", "--format=%cs %ce")).partition(" ")
    except (Failure, error_type()):
        return ""
    return "" if author == SNAPSHOTS else day


def edited(checkout: Path) -> list[str]:
    """Tracked files whose content differs from HEAD, except deleted ones.

    Skips `models/`, which is a link in a generation.
    """
    changed = _changed(command(checkout), checkout, ":!models")
    return [name for name, is_gone in changed if not is_gone]


def damage(checkout: Path) -> str | None:
    """What is wrong with a checkout of ours; None: its repository can be read, and each tracked
    file is as in its commit. Reads every file and object."""
    try:
        for name, is_gone in () if (reason := unreadable(checkout)) else differing(checkout):
            return f"{name} {'is missing' if is_gone else 'is not as in its commit'}"
    except Failure as failure:
        return str(failure)
    return reason


def differing(checkout: Path) -> list[tuple[str, bool]]:
    """Tracked files that differ from HEAD by their content, and whether they are gone.

    Reads every file, whatever its time. Raises Failure.
    """
    with tempfile.TemporaryDirectory() as folder:
        repository = command(checkout)
        # Without the times that the checkout's own index has, git reads each file.
        repository.update_environment(GIT_INDEX_FILE=str(Path(folder, "index")))
        _names(checkout, partial(repository.read_tree, "HEAD"))
        return _changed(repository, checkout)


def unreadable(checkout: Path) -> str | None:
    """Why git can't read a checkout's repository; None: it can, whatever its files are."""
    if not (checkout / ".git").is_dir() or head(checkout) is None:
        return "it has no commit"
    try:
        command(checkout).fsck("--no-dangling", "--no-progress", "--no-reflogs")
    except error_type() as error:
        # 1 alone: an object isn't as git would write it today, as in some old repositories.
        return None if error.status == 1 else gist(error)
    return None


def _changed(repository: Git, checkout: Path, *but: str) -> list[tuple[str, bool]]:
    """Tracked files that differ from HEAD, and whether they are gone, `but` for pathspecs.

    Raises Failure.
    """
    # `git diff` obeys the user's diff.* settings; both it and diff-index would rewrite the index
    # when only a file's time differs.
    entries = _names(
        checkout,
        partial(
            repository.status,
            *("--porcelain=v1", "-z", "--untracked-files=no", "--no-renames"),
            *("--ignore-submodules=dirty", "--", ".", *but),
        ),
    )
    changed = [
        (entry[3:], is_gone)
        for entry in entries
        if (is_gone := "D" in entry[:2]) or not _is_as_committed(checkout, entry[3:])
    ]
    for path in gitlinks(checkout) if (checkout / ".gitmodules").exists() else ():
        if (checkout / path / ".git").exists():
            inner = _changed(command(checkout / path), checkout / path, *but)
            changed += [(f"{path}/{name}", is_gone) for name, is_gone in inner]
    return changed


def gitlinks(checkout: Path) -> dict[str, str]:
    """Path → commit of each submodule."""
    commits = {}
    for entry in _ask(checkout, "ls_files", "-z", "--stage"):
        mode_and_commit, _, path = entry.partition("\t")
        if mode_and_commit.startswith("160000 "):
            commits[path] = mode_and_commit.split()[1]
    return commits


def lacks_submodules(checkout: Path) -> bool:
    """Whether a submodule of .gitmodules is an empty folder; checked on every run.

    git creates a folder for each submodule of the commit; .gitmodules may name removed ones too.
    """
    try:
        text = (checkout / ".gitmodules").read_text(errors="replace")
        places = [checkout / path for path in GITMODULES_PATH.findall(text)]
        return any(place.is_dir() and not any(place.iterdir()) for place in places)
    except (OSError, ValueError):
        return False


def _is_as_committed(checkout: Path, name: str) -> bool:
    """Whether a file that git reports is the commit's after all: byte by byte, although git would
    commit it with other line ends; or the file that replaced its Git LFS pointer."""
    repository = command(checkout)
    try:
        blob = repository.rev_parse("--verify", "--quiet", f"HEAD:{name}")
        if repository.hash_object("--no-filters", "--", name) == blob:
            return True
        if int(repository.cat_file("-s", f"HEAD:{name}")) >= lfs.LONGEST:
            return False
        content = repository.cat_file("blob", f"HEAD:{name}", strip_newline_in_stdout=False)
    except error_type():
        return False
    return lfs.stands_for(str(content).encode(), checkout / name)


def _ask(checkout: Path, subcommand: str, *arguments: str) -> list[str]:
    """The names that git lists. Raises Failure."""
    return _names(checkout, partial(getattr(command(checkout), subcommand), *arguments))


def _names(checkout: Path, ask: Callable[[], object]) -> list[str]:
    """What git answers, separated by zeros. Raises Failure."""
    try:
        listing = str(ask())
    except error_type() as error:
        why = gist(error)
        # git before 2.38 reads safe.directory only from the user's own settings.
        if other := owner(checkout):
            chown = f"chown -R {os.geteuid()} …"
            why = f"{other}: run {PROGRAM} as that user, or give yourself the workspace ({chown})"
        raise Failure(f"git can't read {checkout}: {why}") from error
    return [name for name in listing.split("\0") if name]


def owner(folder: Path) -> str | None:
    """Who owns a folder, if it is another user; None for our own or a missing one."""
    try:
        uid = folder.lstat().st_uid
    except OSError:
        return None
    if uid == os.geteuid():
        return None
    return f"it belongs to {_user(uid)}, this is {_user(os.geteuid())}"


def _user(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


_importing = threading.Lock()


def command(folder: Path | None = None) -> Git:
    """The git command in a folder. Raises Failure without git or the folder."""
    # GitPython uses the current directory when the folder is missing.
    if folder and not folder.is_dir():
        raise Failure(f"{folder} is missing")
    # GitPython looks for git at the end of its import; other threads must wait for that.
    with _importing:
        try:
            from git import Git
        except ImportError as error:
            raise Failure("git isn't installed, or not on the PATH: install git") from error

    git = Git()
    # Git() would expand `$HOME` and `~` in the path.
    git._working_dir = str(folder) if folder else None
    if folder:
        # A custom node whose own repository is damaged isn't a part of ComfyUI's.
        git.update_environment(GIT_CEILING_DIRECTORIES=str(folder.parent))
    git.update_environment(**ENVIRONMENT, **git_settings.ENVIRONMENT, **git_settings.ssh())
    git.set_persistent_git_options(c=git_settings.options(folder))
    return git


def fetch(repository: Git, *arguments: str, on_progress: OnProgress) -> None:
    """`git fetch` with progress. Raises GitCommandError with the rest of its output."""
    # Otherwise git reports no progress below 100 objects, which may be large.
    prepared = repository(c="fetch.unpackLimit=1")
    work = prepared.fetch("--progress", *arguments, as_process=True, with_stdout=False)
    output = []
    # Universal newlines: git ends each state of a step with \r.
    for line in io.TextIOWrapper(work.stderr, errors="replace"):
        if match := PROGRESS.match(line):
            step, percent, more = match.groups()
            start, each = SHARES.get(step, (0.0, 0.0))
            size = more.strip(" ,\n").removesuffix("done.").strip(" ,")
            text = ", ".join(filter(None, [step.lower(), size]))
            on_progress(start + each * float(percent) if each and percent else None, text)
        else:
            output.append(line)
    work.wait(stderr="".join(output))


def error_type() -> type[GitCommandError]:
    with _importing:
        from git import GitCommandError

    return GitCommandError


def gist(error: BaseException) -> str:
    """The most informative line of git's error output, without credentials."""
    text = redact(str(getattr(error, "stderr", "") or error))
    text = re.sub(r"^\s*stderr: '|'\s*$", "", text)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    vague = "fatal: Could not read from remote repository."
    telling = [line for line in lines if re.match(r"fatal: |error: |remote: |ssh: |Host key", line)]
    return ([line for line in telling if line != vague] or telling or lines or ["git failed"])[-1]
