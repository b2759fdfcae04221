"""A program that imports modules in order and reports the result of each.

`python -I import_report.py OUT NAME …`, with the Python of any environment. OUT is rewritten before
and after each import: an empty entry means that the module ended the process. The first module that
doesn't import is the last one tried, since the next ones need it.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import sys
import traceback
from typing import Any

ERRORS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "errors.py")  # noqa: PTH100, PTH118, PTH120
"""The module beside this one; its folder is not on the path."""


def main(out: str, names: list[str]) -> None:
    results: dict[str, dict[str, Any]] = {}
    describe = runpy.run_path(ERRORS)["describe"]
    for name in names:
        results[name] = {}
        write(out, results)
        try:
            module = importlib.import_module(name)
            results[name] = {"version": str(getattr(module, "__version__", ""))}
        except BaseException as error:
            traceback.print_exc()
            results[name] = {"error": describe(error)}
        write(out, results)
        if "error" in results[name]:
            break
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # Skips what such libraries do when the interpreter ends.


def write(out: str, results: dict[str, dict[str, Any]]) -> None:
    part = f"{out}.part"
    with open(part, "w", encoding="utf-8") as opened:  # noqa: PTH123
        json.dump(results, opened)
    os.replace(part, out)  # noqa: PTH105


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
