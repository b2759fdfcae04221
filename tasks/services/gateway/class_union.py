"""Node classes as several instances describe them: what one may choose is what any of them has."""

from __future__ import annotations

from typing import Any

Classes = dict[str, Any]
COMBO = "COMBO"
"""The type of an input whose options are beside it; older classes list them in its place."""


def union(answers: list[Any]) -> Classes:
    """ComfyUI's answers to /object_info in one. What they describe otherwise is as in the first."""
    found: Classes = {}
    for answer in answers:
        for name, about in answer.items() if isinstance(answer, dict) else ():
            found[name] = _class(found[name], about) if name in found else about
    return found


def _class(first: Any, other: Any) -> Any:
    """One class with the options of both."""
    if first == other:
        return first
    inputs, more = _inputs(first), _inputs(other)
    merged = {
        group: {name: _input(about, _get(more.get(group), name)) for name, about in those.items()}
        if isinstance(those, dict)
        else those
        for group, those in inputs.items()
    }
    return {**first, "input": merged} if merged else first


def _input(first: Any, other: Any) -> Any:
    if first == other or not (_is_list(first) and _is_list(other)):
        return first
    kind, *about = first
    if isinstance(kind, list) and isinstance(other[0], list):
        return [_both(kind, other[0]), *about]
    options, more = _options(first), _options(other)
    if kind == other[0] == COMBO and options is not None and more is not None:
        return [kind, {**about[0], "options": _both(options, more)}, *about[1:]]
    return first


def _both(first: list[Any], other: list[Any]) -> list[Any]:
    """Options are few kinds of JSON, some of which can't be hashed."""
    known = {repr(each) for each in first}
    return [*first, *(each for each in other if repr(each) not in known)]


def _options(about: list[Any]) -> list[Any] | None:
    found = _get(about[1], "options") if len(about) > 1 else None
    return found if isinstance(found, list) else None


def _inputs(about: Any) -> Classes:
    found = _get(about, "input")
    return found if isinstance(found, dict) else {}


def _get(about: Any, name: str) -> Any:
    return about.get(name) if isinstance(about, dict) else None


def _is_list(value: Any) -> bool:
    return isinstance(value, list) and bool(value)
