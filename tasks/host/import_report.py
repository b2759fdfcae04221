"""Import modules in their order, and write down what became of each, while it does.

`python -I import_report.py OUT NAME …`, on the Python of any environment: the standard library
is all that it knows. An entry that is empty belongs to the module that ended the process. Stops
at the first module that doesn't import, since those after it need it.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from types import FrameType

LIMIT = 4000
"""Characters of a message that are kept."""


def main(out: str, names: list[str]) -> None:
    results: dict[str, dict[str, str]] = {}
    for name in names:
        results[name] = {}
        write(out, results)
        try:
            module = importlib.import_module(name)
            results[name] = {"version": str(getattr(module, "__version__", ""))}
        except BaseException as error:
            traceback.print_exc()
            reason = root(error)
            results[name] = {"kind": type(reason).__name__, "cause": str(reason)[:LIMIT]}
        write(out, results)
        if "kind" in results[name]:
            break
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # Not what such libraries do when the interpreter ends.


def write(out: str, results: dict[str, dict[str, str]]) -> None:
    part = f"{out}.part"
    with open(part, "w", encoding="utf-8") as opened:  # noqa: PTH123  on anybody's Python
        json.dump(results, opened)
    os.replace(part, out)  # noqa: PTH105


def root(error: BaseException) -> BaseException:
    """The exception behind this one: what it was raised from, or what was handled where it was.

    One that was raised deeper, while another was being handled, is a new attempt that failed for
    a reason of its own.
    """
    passed = {id(error)}
    while True:
        inner = error.__cause__
        context = None if error.__suppress_context__ else error.__context__
        if inner is None and context and _caught_in(context) is _raised_in(error):
            inner = context
        if inner is None or id(inner) in passed:
            return error
        passed.add(id(inner))
        error = inner


def _caught_in(error: BaseException) -> FrameType | None:
    return error.__traceback__.tb_frame if error.__traceback__ else None


def _raised_in(error: BaseException) -> FrameType | None:
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return frames[-1] if frames else None


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
