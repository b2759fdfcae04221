"""Which tasks a run executes, and which of them come first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def closure(tasks: Mapping[str, Any], selected: Sequence[str]) -> list[str]:
    """The selected tasks and all that they need, in the order of `doit list`, without groups."""
    found: set[str] = set()
    left = list(selected)
    while left:
        name = left.pop()
        if name in tasks and name not in found:
            found.add(name)
            left += tasks[name].task_dep
    return [name for name, task in tasks.items() if name in found and task.actions]


def put_first(tasks: Mapping[str, Any], selected: Sequence[str]) -> None:
    """Let the others of a run wait for its tasks marked `first`, except for what these need.

    Not by a dependency of their own: that would bring the check of a machine's ports into the
    build of an image.
    """
    chosen = closure(tasks, selected)
    first = [name for name in chosen if (tasks[name].meta or {}).get("first")]
    before = set(closure(tasks, first))
    for name in chosen:
        if name not in before:
            tasks[name].task_dep += [each for each in first if each not in tasks[name].task_dep]
