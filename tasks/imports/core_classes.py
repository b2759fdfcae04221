"""The node classes of a ComfyUI, read from its source: nothing of it is run."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import TypeGuard

PLACES = ("nodes.py", "comfy_extras/*.py", "comfy_api_nodes/**/*.py", "custom_nodes/*.py")
"""Where ComfyUI defines them. Source: `init_builtin_*_nodes` in its nodes.py."""
MAPPING, SCHEMA, NAME = "NODE_CLASS_MAPPINGS", "Schema", "node_id"
"""What a file maps classes with; and what newer files describe each with, and its name there."""


def core_classes(comfyui: Path) -> frozenset[str]:
    """The classes of a checkout. Raises OSError; a file that isn't Python has none."""
    files = [file for pattern in PLACES for file in comfyui.glob(pattern)]
    return frozenset(name for file in files for name in classes_in(file))


def classes_in(file: Path) -> Iterator[str]:
    """The classes that a Python file names literally. Raises OSError."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, RecursionError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign) and _maps(node):
            yield from _keys(node.value)
        elif isinstance(node, ast.Call):
            yield from _called(node)


def _maps(node: ast.Assign | ast.AnnAssign | ast.AugAssign) -> bool:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return any(MAPPING in ast.dump(each) for each in targets)


def _keys(value: ast.expr | None) -> Iterator[str]:
    for each in ast.walk(value) if value is not None else ():
        if isinstance(each, ast.Dict):
            yield from (_text(name) for name in each.keys if _is_text(name))


def _called(call: ast.Call) -> Iterator[str]:
    """Of `io.Schema(node_id="…")` and `NODE_CLASS_MAPPINGS.update({"…": …})`."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if name == SCHEMA:
        for each in call.keywords:
            if each.arg == NAME and _is_text(each.value):
                yield _text(each.value)
    elif name == "update" and MAPPING in ast.dump(call.func):
        for argument in call.args:
            yield from _keys(argument)


def _is_text(value: ast.expr | None) -> TypeGuard[ast.Constant]:
    return isinstance(value, ast.Constant) and isinstance(value.value, str)


def _text(constant: ast.Constant) -> str:
    return str(constant.value)
