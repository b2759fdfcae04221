"""git: its command, prepared never to ask nor to stray, and what it says of a checkout."""

from __future__ import annotations

import io
import os
import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from ..system import process
from ..system.failure import Failure
from ..system.progress import OnProgress
from ..system.redaction import redact
from . import git_settings, lfs

if TYPE_CHECKING:
    from git import Git, GitCommandError

#: git must never ask a question that no one sees, and must give up on a silent connection.
ENVIRONMENT = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_HTTP_LOW_SPEED_LIMIT": "1000",
    "GIT_HTTP_LOW_SPEED_TIME": "30",
    "LC_ALL": "C",
}
#: What git's hooks and `git rebase --exec` set: it would lead every command of ours to the
#: caller's repository (`git rev-parse --local-env-vars`).
LOCAL_VARIABLES = (
    "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_CONFIG", "GIT_OBJECT_DIRECTORY", "GIT_DIR",
    "GIT_WORK_TREE", "GIT_IMPLICIT_WORK_TREE", "GIT_GRAFT_FILE", "GIT_INDEX_FILE",
    "GIT_NO_REPLACE_OBJECTS", "GIT_REPLACE_REF_BASE", "GIT_PREFIX", "GIT_SHALLOW_FILE",
    "GIT_COMMON_DIR", "GIT_NAMESPACE",
)  # fmt: skip
GITMODULES_PATH = re.compile(r'^\s*path\s*=\s*"?(.+?)"?\s*$', re.M)
PROGRESS = re.compile(r"(?:remote: )?([A-Z][a-z]+ \w+): +(?:(\d+)% \(\d+/\d+\)|\d+)(.*)")
SHARES = {"Receiving objects": (0.0, 0.9), "Resolving deltas": (90.0, 0.1)}
"""What of a fetch is behind it when a step begins, and what of it one percent of the step is."""


def forget_the_callers_repository() -> None:
    """Take from this process's environment what ties git to a repository, or makes it chatty.

    A trace has the credentials of every URL, and it would be read as git's error text.
    """
    for name in list(os.environ):
        if name in LOCAL_VARIABLES or name.startswith(process.TRACES):
            del os.environ[name]


def head(checkout: Path) -> str | None:
    """The commit that a checkout's HEAD names, read from its files; None without one.

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
    except (OSError, ValueError):
        pass
    return None


def init(repository: Git, *arguments: str) -> None:
    """`git init`, without the user's template, which may hold hooks."""
    repository.init("--quiet", "--template=", *arguments)


def snapshot(folder: Path) -> str:
    """Make `folder`, which is no repository, one with a single commit of all its files.

    Author and date are fixed, so equal content gives an equal commit.
    """
    git = command(folder)
    init(git)
    git.add("--all", "--force")
    who = ("comfy-machine", "comfy-machine@localhost", "2000-01-01T00:00:00Z")
    keys = ("NAME", "EMAIL", "DATE")
    identity = {
        f"GIT_{role}_{key}": value
        for role in ("AUTHOR", "COMMITTER")
        for key, value in zip(keys, who, strict=True)
    }
    git.update_environment(**identity)
    # There is nothing to tidy up in one commit.
    prepared = git(c="maintenance.auto=false")
    prepared.commit("-q", "--no-verify", "-m", "content")
    return str(git.rev_parse("HEAD"))


def tracked(checkout: Path) -> list[str]:
    """The files that git tracks, relative to the checkout; submodules' included."""
    return _ask(checkout, "ls_files", "-z", "--recurse-submodules")


def untracked(checkout: Path) -> list[str]:
    """Files that git doesn't track, ignored ones included; nested repositories end in `/`."""
    return _ask(checkout, "ls_files", "-z", "--others")


def ignored(checkout: Path) -> list[str]:
    """The patterns that git looks away from, in this checkout alone."""
    try:
        return (checkout / ".git" / "info" / "exclude").read_text().splitlines()
    except OSError:
        return []


def ignore(checkout: Path, pattern: str) -> None:
    """Have git look away from what matches (as in a .gitignore), in this checkout alone."""
    file = checkout / ".git" / "info" / "exclude"
    file.parent.mkdir(exist_ok=True)
    with file.open("a") as exclude:
        exclude.write(f"\n{pattern}\n")


def edited(checkout: Path) -> list[str]:
    """Tracked files whose content differs from HEAD; a deleted one holds nothing to lose.

    `models/` is left out: in a generation it is a link.
    """
    # `git diff` follows settings of the user's (diff.*), and both it and diff-index would have the
    # index written anew where only a file's time differs.
    entries = _ask(
        *(checkout, "status", "--porcelain=v1", "-z", "--untracked-files=no", "--no-renames"),
        *("--ignore-submodules=dirty", "--", ".", ":!models"),
    )
    own = [entry[3:] for entry in entries if "D" not in entry[:2]]
    found = [name for name in own if not _stands_for(checkout, name)]
    for path in gitlinks(checkout) if (checkout / ".gitmodules").exists() else ():
        if (checkout / path / ".git").exists():
            found += [f"{path}/{name}" for name in edited(checkout / path)]
    return found


def gitlinks(checkout: Path) -> dict[str, str]:
    """The commit of another repository that belongs at each of these places."""
    commits = {}
    for entry in _ask(checkout, "ls_files", "-z", "--stage"):
        # Mode 160000, a submodule's.
        if entry.startswith("160000 "):
            about, path = entry.split("\t", 1)
            commits[path] = about.split()[1]
    return commits


def lacks_submodules(checkout: Path) -> bool:
    """Whether a submodule that .gitmodules names is an empty folder; asked on every run.

    git makes one for each that the commit has; some repositories name what they have no more.
    """
    try:
        text = (checkout / ".gitmodules").read_text(errors="replace")
        places = [checkout / path for path in GITMODULES_PATH.findall(text)]
        return any(place.is_dir() and not any(place.iterdir()) for place in places)
    except (OSError, ValueError):
        return False


def _stands_for(checkout: Path, name: str) -> bool:
    """Whether a file differs from HEAD since git-lfs put it in its pointer's place."""
    repository = command(checkout)
    try:
        if int(repository.cat_file("-s", f"HEAD:{name}")) >= lfs.LONGEST:
            return False
        content = repository.cat_file("blob", f"HEAD:{name}", strip_newline_in_stdout=False)
    except error_type():
        return False
    return lfs.stands_for(str(content).encode(), checkout / name)


def _ask(checkout: Path, subcommand: str, *arguments: str) -> list[str]:
    """The names that git lists. Raises Failure."""
    try:
        listing = str(getattr(command(checkout), subcommand)(*arguments))
    except error_type() as error:
        why = gist(error)
        # git before 2.38 trusts another's repository by the user's own settings alone.
        if whose := owner(checkout):
            own = f"chown -R {os.geteuid()} …"
            why = f"{whose}: run doit as that user, or give yourself the workspace ({own})"
        raise Failure(f"git can't look at {checkout}: {why}") from error
    return [name for name in listing.split("\0") if name]


def owner(folder: Path) -> str | None:
    """Whose a folder is, where it is another user's; None where it is our own, or isn't there."""
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
    # GitPython runs in the current directory when its own isn't there.
    if folder and not folder.is_dir():
        raise Failure(f"{folder} isn't there")
    # GitPython looks for git at the end of its import; another thread must not use it before.
    with _importing:
        try:
            from git import Git
        except ImportError as error:
            raise Failure("git isn't installed, or not on the PATH: install git") from error

    git = Git()
    # Given to Git(), `$HOME` and `~` in a path would be expanded, and git run in another folder.
    git._working_dir = str(folder) if folder else None
    git.update_environment(**ENVIRONMENT, **git_settings.ENVIRONMENT, **git_settings.ssh())
    git.set_persistent_git_options(c=git_settings.options())
    return git


def fetch(repository: Git, *arguments: str, on_progress: OnProgress) -> None:
    """`git fetch`, heard while it works. Raises GitCommandError with what else it said."""
    # Of less than 100 objects, which may be large ones, git else says nothing.
    prepared = repository(c="fetch.unpackLimit=1")
    work = prepared.fetch("--progress", *arguments, as_process=True, with_stdout=False)
    said = []
    # Each state of a step ends in \r.
    for line in io.TextIOWrapper(work.stderr, errors="replace"):
        if found := PROGRESS.match(line):
            step, percent, more = found.groups()
            before, each = SHARES.get(step, (0.0, 0.0))
            size = more.strip(" ,\n").removesuffix("done.").strip(" ,")
            words = ", ".join(filter(None, [step.lower(), size]))
            on_progress(before + each * float(percent) if each and percent else None, words)
        else:
            said.append(line)
    work.wait(stderr="".join(said))


def error_type() -> type[GitCommandError]:
    with _importing:
        from git import GitCommandError

    return GitCommandError


def gist(error: BaseException) -> str:
    """The line of git's error output that says what was wrong, without credentials."""
    text = redact(str(getattr(error, "stderr", "") or error))
    text = re.sub(r"^\s*stderr: '|'\s*$", "", text)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    vague = "fatal: Could not read from remote repository."
    telling = [line for line in lines if re.match(r"fatal: |error: |remote: |ssh: |Host key", line)]
    return ([line for line in telling if line != vague] or telling or lines or ["git failed"])[-1]
