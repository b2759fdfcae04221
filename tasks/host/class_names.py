"""Run ComfyUI, then write down which custom node gave which node classes.

`python class_names.py OUT main.py [ARG …]`, in ComfyUI's folder, on the instance's Python.
Arguments, path and `__main__` are as with `python main.py`, since ComfyUI and nodes look at them;
OUT stays away when they end the process in a way that nothing can follow.
"""

from __future__ import annotations

import contextlib
import os
import sys

# First of all: nothing that lies beside this file may be found in place of a module of ComfyUI's.
sys.path[0] = os.getcwd()  # noqa: PTH109  pathlib would be loaded from anywhere


def main() -> None:
    out, program = sys.argv[1:3]
    del sys.argv[:2]
    file = os.path.abspath(program)  # noqa: PTH100
    with open(file, "rb") as opened:  # noqa: PTH123
        code = compile(opened.read(), file, "exec", dont_inherit=True)
    note = write  # the program may have one of its own
    globals().update(__file__=file, __doc__=None, __cached__=None)
    try:
        exec(code, globals())
    finally:
        with contextlib.suppress(Exception):
            note(out)


def write(out: str) -> None:
    """Custom node → names of its classes; `RELATIVE_PYTHON_MODULE` is what ComfyUI tells as
    `python_module` (its nodes.py, of either kind of node)."""
    import json

    found: dict[str, list[str]] = {}
    for name, node in list(sys.modules["nodes"].NODE_CLASS_MAPPINGS.items()):
        home, _, owner = str(getattr(node, "RELATIVE_PYTHON_MODULE", "")).partition(".")
        if home == "custom_nodes" and owner and is_told(node):
            found.setdefault(owner, []).append(str(name))
    with open(out, "w", encoding="utf-8") as opened:  # noqa: PTH123
        json.dump(found, opened)


def is_told(node: object) -> bool:
    """Whether /object_info has a class. Not so one of which ComfyUI can't tell (its server.py), as
    many are that were written for a newer one (seen with KJNodes on 0.3.64)."""
    try:
        if tell := getattr(node, "GET_NODE_INFO_V1", None):
            tell()
        else:
            node.INPUT_TYPES().items()  # type: ignore[attr-defined]
            len(node.RETURN_TYPES)  # type: ignore[attr-defined]
    except Exception:
        return False
    return True


if __name__ == "__main__":
    main()
