"""Child processes: whether a command may move a checkout or install packages."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

MOVING = frozenset(
    "am apply checkout cherry-pick clean commit merge mv pull rebase reset restore revert rm stash "
    "submodule switch".split()
)
"""Subcommands of git that may move a checkout, or change its files."""
WITH_VALUE = frozenset({"-C", "-c", "--git-dir", "--work-tree"})
INSTALLERS = frozenset({"pip", "pip3", "uv"})


def command(arguments: tuple[Any, ...]) -> tuple[list[str], str]:
    """The command line in an audit event, empty for a shell's, and the working directory.

    The words are the second argument of all events. Only subprocess.Popen gives a directory, as the
    third of four.
    """
    given = arguments[1] if len(arguments) > 1 else None
    words = [*map(os.fsdecode, _texts(given))] if isinstance(given, (list, tuple)) else []
    folder = arguments[2:3] if len(arguments) == 4 else ()
    here = next((os.fsdecode(each) for each in _texts(folder)), os.getcwd())  # noqa: PTH109
    if "-C" in words[:-1]:
        here = os.path.join(here, words[words.index("-C") + 1])  # noqa: PTH118
    return words, here


def moves(words: list[str]) -> bool:
    """Whether it is a git command that may move a checkout."""
    if not words or os.path.basename(words[0]) != "git":  # noqa: PTH119
        return False
    rest = iter(words[1:])
    for word in rest:
        if word in WITH_VALUE:
            next(rest, None)
        elif not word.startswith("-"):
            return word in MOVING
    return False


def installs(words: list[str]) -> bool:
    """Whether it is pip or uv, run by name or as a module of Python."""
    return not INSTALLERS.isdisjoint(map(os.path.basename, words[:4]))


def _texts(given: Any) -> Iterator[Any]:
    yield from (each for each in given if isinstance(each, (str, bytes, os.PathLike)))
