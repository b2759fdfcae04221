"""The settings of each git command of ours: no setting of the user's changes a checkout.

How a repository is reached stays as the user has it: url.insteadOf, credentials, proxies,
certificates, ssh, protocols.
"""

from __future__ import annotations

import functools
import os
import subprocess
from collections.abc import Iterator

#: A command's `-c` wins over every file, and reaches the commands that git itself runs.
SETTINGS = {
    # The bytes of the repository.
    "core.autocrlf": "false",
    "core.eol": "lf",
    "core.safecrlf": "false",
    "core.symlinks": "true",
    "core.attributesFile": "/dev/null",
    # Nothing of the user's runs in it.
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "commit.gpgSign": "false",
    # What else is fetched, or refused, is the same everywhere.
    "fetch.fsckObjects": "false",
    "transfer.fsckObjects": "false",
    "fetch.recurseSubmodules": "false",
    "fetch.prune": "false",
    "fetch.pruneTags": "false",
    "submodule.recurse": "false",
    "submodule.active": ".",
    "uploadpack.allowAnySHA1InWant": "true",
    # What git says is read by us.
    "diff.orderFile": "/dev/null",
    "color.ui": "false",
    "color.remote": "false",
    "color.advice": "false",
    "color.transport": "false",
    # The workspace and the cache are ours, also where another user owns their files.
    "safe.directory": "*",
    "safe.bareRepository": "all",
}
#: Where variables win over settings, or none of these is old enough to be refused.
ENVIRONMENT = {
    "GIT_ATTR_NOSYSTEM": "1",
    # To look changes nothing.
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_DEFAULT_HASH": "sha1",
    "GIT_DEFAULT_REF_FORMAT": "files",
    "GIT_LITERAL_PATHSPECS": "0",
    "GIT_ICASE_PATHSPECS": "0",
    "GIT_NOGLOB_PATHSPECS": "0",
    "GIT_GLOB_PATHSPECS": "0",
}
FILTER = ("clean", "smudge", "process")


def options() -> list[str]:
    """The settings of every command, as `KEY=VALUE`: ours, and no filter of the user's.

    A filter (git-lfs, nbstripout) may change every file of a checkout, fail, or not be installed.
    """
    filters = {"lfs", *_users()[1]}
    off = {f"filter.{name}.{key}": "" for name in filters for key in FILTER}
    required = {f"filter.{name}.required": "false" for name in filters}
    return [f"{key}={value}" for key, value in (SETTINGS | off | required).items()]


def ssh() -> dict[str, str]:
    """Keep ssh from asking questions, unless the user configured its command."""
    if "GIT_SSH_COMMAND" in os.environ or "GIT_SSH" in os.environ or _users()[0]:
        return {}
    return {"GIT_SSH_COMMAND": "ssh -o BatchMode=yes -o ConnectTimeout=30"}


def serving() -> str:
    """The command by which git reads a repository of ours: it drops its own settings."""
    return "git -c safe.directory=* -c safe.bareRepository=all upload-pack"


def _users() -> tuple[bool, frozenset[str]]:
    """Whether the user's settings say how ssh is called, and the filters that they name."""
    named = {k: v for k, v in os.environ.items() if k.startswith(("GIT_CONFIG", "XDG_CONFIG"))}
    return _read(os.environ.get("HOME", ""), *(f"{k}={v}" for k, v in sorted(named.items())))


@functools.cache
def _read(*_: str) -> tuple[bool, frozenset[str]]:
    """Asked once for each environment."""
    try:
        asked = subprocess.run(
            ["git", "config", "--list", "--name-only", "-z"],
            cwd="/",
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    except OSError:
        return False, frozenset()
    keys = asked.stdout.split("\0")
    return "core.sshcommand" in keys, frozenset(_filters(keys))


def _filters(keys: list[str]) -> Iterator[str]:
    for key in keys:
        section, _, rest = key.partition(".")
        name, _, variable = rest.rpartition(".")
        if section == "filter" and variable in {*FILTER, "required"}:
            yield name
