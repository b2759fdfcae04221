"""The `.env` of each custom node that has `env:`, written when instances start, never in a build.

A generation holds only a link to it, so no image layer has a secret in it.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from . import validation
from .engine.run import Run
from .engine.step import Task, group, step
from .host.system import files
from .host.system.failure import Failure
from .spec import CustomNode, expand

MODE = 0o600


def tasks(run: Run) -> Iterator[Task]:
    served = nodes_with_env(run) if run.machine.enabled else []
    yield group("dotenv", "The .env of custom nodes that have env:, mode 0600")
    for node in served:
        yield step(
            run,
            f"dotenv:{node.name}",
            f"The .env of {node.name}",
            check=partial(_differs, run, node),
            action=partial(_write, run, node),
            preview=partial(_preview, run, node),
            after=["directories", "variables"],
        )
    yield step(
        run,
        # No node's name begins with a dot.
        "dotenv:.proof",
        "A node that missed its .env in a build imports with it",
        # Validation is part of the build, so it can't wait for these files.
        check=partial(_reason_to_validate, run),
        action=partial(validation.validate, run),
        after=["validation", *(f"dotenv:{node.name}" for node in served)],
    )
    yield step(
        run,
        "dotenv:.prune",
        "Files of nodes that have no env any more are removed",
        check=partial(_reason_to_prune, run),
        action=partial(_prune, run),
        # What runs may still read them: they go once what comes next is proved.
        after=["dotenv:.proof"],
    )


def _reason_to_validate(run: Run) -> str | None:
    # A plan can't know what would import.
    return None if run.overlay else validation.reason_to_validate(run)


def nodes_with_env(run: Run) -> list[CustomNode]:
    """The nodes that instances load and that have `env:`."""
    chosen = run.machine.selected_nodes
    return [
        node
        for node in run.machine.custom_nodes
        if node.env and (chosen is None or node.name in chosen)
    ]


def contents(run: Run) -> dict[str, str]:
    """What each node's .env says, by the node's name. Holds secrets; Failure as in `_content`."""
    found = {node.name: _content(run, node) for node in nodes_with_env(run)}
    return {name: text for name, text in found.items() if text is not None}


def _content(run: Run, node: CustomNode) -> str | None:
    """The text of a node's .env; None, with a warning, for an optional one that can't have it.

    Raises Failure for a variable that isn't set.
    """
    try:
        values = {key: expand(value, run.machine.env) for key, value in node.env.items()}
    except KeyError as error:
        said = (
            f"custom node {node.name}: the variable {error.args[0]} isn't set, its env needs it: "
            f"set it, or put it into {run.machine.file.parent / '.env.local'}"
        )
        if not node.optional:
            raise Failure(said) from None
        run.warn(f"{said}; it is optional and goes without its .env")
        return None
    return "".join(f"{key}={quote(value)}\n" for key, value in values.items())


def quote(value: str) -> str:
    r"""A value so that python-dotenv reads it exactly, and simpler readers where it can be.

    Bare and in single quotes it stands as it is; only double quotes know escapes, and keep a
    newline from ending the line. python-dotenv (0.21 to 1.2) puts variables in under any quotes,
    with no escape for `${`; but `${:-x}` is x, the default of a variable without a name. 1.0
    takes a backslash before the last quote for that quote's escape, even an escaped one.
    """
    text = value.replace("${", "${:-$}{")
    if value == value.strip() and not re.search(r"[\r\n#]|^['\"]|['\"]$", value):
        return text
    if not re.search(r"[\r\n'\\]", value):
        return f"'{text}'"
    for plain, escaped in (("\\", r"\\"), ('"', r"\""), ("\n", r"\n"), ("\r", r"\r")):
        text = text.replace(plain, escaped)
    apart = "${:-}" if text.endswith("\\") else ""
    return f'"{text}{apart}"'


def _differs(run: Run, node: CustomNode) -> str | None:
    file = run.layout.dotenv(node.name)
    text = _content(run, node)
    if text is None:
        return f"{file} isn't wanted now" if file.exists() else None
    if not file.is_file():
        return f"{file} isn't there"
    if stat.S_IMODE(file.lstat().st_mode) != MODE:
        return f"{file} doesn't have mode {MODE:04o}"
    return None if file.read_bytes() == text.encode() else f"what {file} says changed"


def _preview(run: Run, node: CustomNode, log: Path) -> list[str]:
    """Nothing to say but that a variable isn't set, which `_content` raises."""
    _content(run, node)
    return []


def _write(run: Run, node: CustomNode, log: Path) -> None:
    file = run.layout.dotenv(node.name)
    text = _content(run, node)
    if text is None:
        files.remove(file)
    else:
        files.write_text(file, text, mode=MODE)


def _stale_files(run: Run) -> list[Path]:
    """Files of other nodes, and what a killed run left half-written."""
    layout = run.layout
    keep = {layout.dotenv(node.name) for node in nodes_with_env(run)}
    return sorted(set(layout.dotenvs.glob("*")) - keep)


def _reason_to_prune(run: Run) -> str | None:
    names = [path.name for path in _stale_files(run)]
    return f"no node needs {', '.join(names)}" if names else None


def _prune(run: Run, log: Path) -> None:
    for path in _stale_files(run):
        files.remove(path)
