"""Settings for our git commands, so that the user's settings don't change checkouts.

The user's settings for connections still apply: url.insteadOf, credentials, proxies, certificates,
ssh and protocols.
"""

from __future__ import annotations

import functools
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

#: `-c` settings override all files, and apply to the commands that git itself runs.
SETTINGS = {
    # Files have the same bytes as in the repository.
    "core.autocrlf": "false",
    "core.eol": "lf",
    "core.safecrlf": "false",
    "core.symlinks": "true",
    "core.attributesFile": "/dev/null",
    # No program of the user runs.
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "commit.gpgSign": "false",
    # Fetches are the same on every machine.
    "fetch.fsckObjects": "false",
    "transfer.fsckObjects": "false",
    "fetch.recurseSubmodules": "false",
    "fetch.prune": "false",
    "fetch.pruneTags": "false",
    "submodule.recurse": "false",
    "submodule.active": ".",
    "uploadpack.allowAnySHA1InWant": "true",
    # Output can be parsed.
    "diff.orderFile": "/dev/null",
    "color.ui": "false",
    "color.remote": "false",
    "color.advice": "false",
    "color.transport": "false",
    # The workspace and the cache are trusted, even if another user owns their files.
    "safe.directory": "*",
    "safe.bareRepository": "all",
}
#: Variables for what settings can't override.
ENVIRONMENT = {
    "GIT_ATTR_NOSYSTEM": "1",
    # Reading changes no file.
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_DEFAULT_HASH": "sha1",
    "GIT_DEFAULT_REF_FORMAT": "files",
    "GIT_LITERAL_PATHSPECS": "0",
    "GIT_ICASE_PATHSPECS": "0",
    "GIT_NOGLOB_PATHSPECS": "0",
    "GIT_GLOB_PATHSPECS": "0",
}
FILTER = ("clean", "smudge", "process")


def options(folder: Path | None = None) -> list[str]:
    """The settings of every command, as `KEY=VALUE`. They disable the user's filters, and those of
    the repository in `folder`, which may be anybody's.

    A filter (git-lfs, nbstripout) may change every file of a checkout, fail, or not be installed.
    """
    filters = {"lfs", *_user_settings()[1], *(_own_filters(folder) if folder else ())}
    disabled = {f"filter.{name}.{key}": "" for name in filters for key in FILTER}
    optional = {f"filter.{name}.required": "false" for name in filters}
    return [f"{key}={value}" for key, value in (SETTINGS | disabled | optional).items()]


def ssh() -> dict[str, str]:
    """Keep ssh from asking questions, unless the user configured its command."""
    if "GIT_SSH_COMMAND" in os.environ or "GIT_SSH" in os.environ or _user_settings()[0]:
        return {}
    return {"GIT_SSH_COMMAND": "ssh -o BatchMode=yes -o ConnectTimeout=30"}


def serving() -> str:
    """The upload-pack command for the cache, which doesn't inherit `-c` settings."""
    return "git -c safe.directory=* -c safe.bareRepository=all upload-pack"


def _user_settings() -> tuple[bool, frozenset[str]]:
    """Whether the user's settings have an ssh command, and the names of their filters."""
    names = [name for name in os.environ if name.startswith(("GIT_CONFIG", "XDG_CONFIG"))]
    return _read_settings(*(f"{k}={os.environ.get(k, '')}" for k in ["HOME", *sorted(names)]))


@functools.cache
def _read_settings(*_: str) -> tuple[bool, frozenset[str]]:
    """Runs git once for each set of variables that select the files."""
    try:
        listing = subprocess.run(
            ["git", "config", "--list", "--name-only", "-z"],
            cwd="/",
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    except OSError:
        return False, frozenset()
    keys = listing.stdout.split("\0")
    return "core.sshcommand" in keys, frozenset(_filters(keys))


def _own_filters(folder: Path) -> frozenset[str]:
    """The filters that a repository's own settings name. Nothing of it is run."""
    place = folder / ".git"
    if place.is_dir():
        # Ours have none, and are asked for often.
        texts = [_text(place / name) for name in ("config", "config.worktree")]
        if not any(word in text for text in texts for word in ("filter", "include")):
            return frozenset()
    elif not place.is_file():
        return frozenset()
    listing = subprocess.run(
        ["git", "config", "--list", "--name-only", "-z"],
        cwd=folder,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    return frozenset(_filters(listing.stdout.split("\0")))


def _text(file: Path) -> str:
    """In small letters; empty for what is no file."""
    try:
        return file.read_text(errors="replace").lower() if file.is_file() else ""
    except OSError:
        return ""


def _filters(keys: list[str]) -> Iterator[str]:
    for key in keys:
        section, _, rest = key.partition(".")
        name, _, variable = rest.rpartition(".")
        if section == "filter" and variable in {*FILTER, "required"}:
            yield name
