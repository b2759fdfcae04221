"""An exception as values that JSON can hold."""

from __future__ import annotations

import errno
import re
import traceback
from collections.abc import Iterator
from types import TracebackType
from typing import Any

LONGEST = 300
"""Characters of a message."""
LONGEST_TRACE = 6000
"""Characters that are kept of a traceback, its end."""

_SONAME = re.compile(r"^(lib[\w.+-]+\.so[\w.]*): cannot open shared object file")
"""glibc's message for a shared library that is missing."""


def describe(error: BaseException) -> dict[str, Any]:
    """An exception as values. `root` is the first of its causes."""
    chain = list(_chain(error))
    root = chain[-1]
    trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    found = {
        **_words(error),
        "trace": trace[-LONGEST_TRACE:],
        "modules": sorted({name for each in chain for name in _modules(each.__traceback__)})[:100],
        "library": next(filter(None, map(_library, chain)), None),
        "key": next((e.args[0] for e in chain if isinstance(e, KeyError) and _is_key(e)), None),
        "module": next(
            (e.name for e in chain if isinstance(e, ModuleNotFoundError) and e.name), None
        ),
        "errno": next((each.errno for each in chain if isinstance(each, OSError)), None),
        "file": next(
            (str(e.filename) for e in chain if isinstance(e, OSError) and e.filename), None
        ),
        "address": next(filter(None, map(_address, chain)), None),
    }
    return found | ({"root": _words(root)} if root is not error else {})


def _words(error: BaseException) -> dict[str, str]:
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return {"type": type(error).__name__, "message": (lines or [""])[0][:LONGEST]}


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    at: BaseException | None = error
    while at is not None and id(at) not in seen:
        seen.add(id(at))
        yield at
        at = at.__cause__ or _handled_by(at)


def _handled_by(error: BaseException) -> BaseException | None:
    """The exception that was being handled in the frame that raised this one.

    An exception raised deeper comes from a new attempt that failed for its own reason.
    """
    handled = None if error.__suppress_context__ else error.__context__
    if handled is None or handled.__traceback__ is None:
        return None
    raised_in = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return handled if raised_in and raised_in[-1] is handled.__traceback__.tb_frame else None


def _modules(trace: TracebackType | None) -> Iterator[str]:
    while trace is not None:
        yield str(trace.tb_frame.f_globals.get("__name__", ""))
        trace = trace.tb_next


def _library(error: BaseException) -> str | None:
    found = _SONAME.match(str(error)) if isinstance(error, (ImportError, OSError)) else None
    return found[1] if found else None


def _address(error: BaseException) -> str | None:
    """The address that a socket can't be bound to, from the frame that called bind."""
    if not isinstance(error, OSError) or error.errno != errno.EADDRINUSE:
        return None
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    for frame in reversed(frames):
        own = getattr(frame.f_locals.get("self"), "__dict__", {})
        for value in (*frame.f_locals.values(), *own.values()):
            if type(value) is tuple and [type(part) for part in value[:2]] == [str, int]:
                return f"{value[0]}:{value[1]}"
    return None


def _is_key(error: KeyError) -> bool:
    return bool(error.args) and isinstance(error.args[0], str) and len(error.args[0]) < LONGEST
