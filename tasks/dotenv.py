"""The `.env` of each custom node that has `env:`, written when instances start, never in a build.

A generation has only a link to it, so no image layer contains a secret.
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
    selected = nodes_with_env(run) if run.machine.enabled else []
    yield group("dotenv", "The .env of custom nodes that have env:, mode 0600")
    for node in selected:
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
        "Import the nodes again that had no .env in the build",
        # Validation is part of the build, so it can't wait for these files.
        check=partial(_reason_to_validate, run),
        action=partial(validation.validate, run),
        after=["validation", *(f"dotenv:{node.name}" for node in selected)],
    )
    yield step(
        run,
        "dotenv:.prune",
        "Remove the .env of nodes that have no env: any more",
        check=partial(_reason_to_prune, run),
        action=partial(_prune, run),
        # Running instances may still read them: remove them after the new ones are validated.
        after=["dotenv:.proof"],
    )


def _reason_to_validate(run: Run) -> str | None:
    # A plan can't know which nodes would import.
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
    """The text of each node's .env, by the node's name, with secrets. Raises Failure."""
    found = {node.name: _content(run, node) for node in nodes_with_env(run)}
    return {name: text for name, text in found.items() if text is not None}


def _content(run: Run, node: CustomNode) -> str | None:
    """The text of a node's .env. Raises Failure for a variable that isn't set.

    For an optional node it warns and returns None instead.
    """
    try:
        values = {key: expand(value, run.machine.env) for key, value in node.env.items()}
    except KeyError as error:
        problem = (
            f"custom node {node.name}: the variable {error.args[0]} isn't set, and its env needs "
            f"it: set it, or put it into {run.machine.file.parent / '.env.local'}"
        )
        if not node.optional:
            raise Failure(problem) from None
        run.warn(f"{problem}; the node is optional and gets no .env")
        return None
    return "".join(f"{key}={quote(value)}\n" for key, value in values.items())


def quote(value: str) -> str:
    r"""Quote a value so that python-dotenv reads it exactly, and simpler readers where possible.

    A bare value and one in single quotes is literal; only double quotes have escapes and may
    contain a newline. python-dotenv (0.21 to 1.2) expands variables in any quotes and has no
    escape for `${`; but `${:-x}` is x, the default of a variable without a name. 1.0 takes a
    backslash before the last quote as that quote's escape, even an escaped backslash.
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
        return f"{file} isn't needed any more" if file.exists() else None
    if not file.is_file():
        return f"{file} is missing"
    if stat.S_IMODE(file.lstat().st_mode) != MODE:
        return f"the mode of {file} isn't {MODE:04o}"
    return None if file.read_bytes() == text.encode() else f"the content of {file} changed"


def _preview(run: Run, node: CustomNode, log: Path) -> list[str]:
    """Only raise the Failure of `_content`."""
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
    """Files of other nodes, and partial files of a killed run."""
    layout = run.layout
    keep = {layout.dotenv(node.name) for node in nodes_with_env(run)}
    return sorted(set(layout.dotenvs.glob("*")) - keep)


def _reason_to_prune(run: Run) -> str | None:
    names = [path.name for path in _stale_files(run)]
    return f"not needed any more: {', '.join(names)}" if names else None


def _prune(run: Run, log: Path) -> None:
    for path in _stale_files(run):
        files.remove(path)
