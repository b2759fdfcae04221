"""The dependencies in a pyproject.toml's [project], the table that the Comfy registry reads."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..host.system import files

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FILE = "pyproject.toml"


class UnreadableProject(Exception):  # noqa: N818
    """The file can't be read; `str()` says why, without the file's name."""


@dataclass(frozen=True)
class Project:
    """The dependencies of a pyproject.toml."""

    dependencies: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    """Requirements files that it names instead of dependencies."""
    text: str = ""

    def place_of(self, number: str) -> str:
        """The place of a dependency, by its number from 1: pyproject.toml:7."""
        dependency = self.dependencies[int(number) - 1]
        for line, content in enumerate(self.text.splitlines(), 1):
            if dependency in content:
                return f"{FILE}:{line}"
        return FILE


def read_project(folder: Path) -> Project:
    """Read the folder's pyproject.toml; empty without one. Raises UnreadableProject."""
    try:
        text = files.read_bytes(folder / FILE).decode()
        content = tomllib.loads(text)
    except FileNotFoundError:
        return Project()
    except (OSError, ValueError, RecursionError) as error:
        raise UnreadableProject(f"can't be read ({error})") from None
    dependencies = _strings(_table(content, "project").get("dependencies"))
    if dependencies:
        return Project(tuple(" ".join(each.split()) for each in dependencies), (), text)
    dynamic = _table(content, "tool", "setuptools", "dynamic", "dependencies").get("file")
    return Project((), _strings([dynamic] if isinstance(dynamic, str) else dynamic), text)


@contextmanager
def as_requirements(project: Project) -> Iterator[Path]:
    """Write its dependencies to a temporary requirements file, one per line."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, FILE)
        file.write_text("".join(f"{each}\n" for each in project.dependencies), encoding="utf-8")
        yield file


def _table(content: Any, *names: str) -> dict[str, Any]:
    for name in names:
        content = content.get(name) if isinstance(content, dict) else None
    return content if isinstance(content, dict) else {}


def _strings(value: Any) -> tuple[str, ...]:
    return tuple(each for each in value if isinstance(each, str)) if isinstance(value, list) else ()
