"""What a pyproject.toml depends on: its [project], which is what the Comfy registry reads."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FILE = "pyproject.toml"


class UnreadableProject(Exception):  # noqa: N818  what it is, as a sentence goes on
    """It can't be read; `str()` says why, without its name."""


@dataclass(frozen=True)
class Project:
    """What it depends on."""

    dependencies: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    """Requirements files that it names in their place."""
    text: str = ""

    def place_of(self, number: str) -> str:
        """Where the dependency of this number, counted from 1, stands: pyproject.toml:7."""
        wanted = self.dependencies[int(number) - 1]
        for line, content in enumerate(self.text.splitlines(), 1):
            if wanted in content:
                return f"{FILE}:{line}"
        return FILE


def read_project(folder: Path) -> Project:
    """What the folder's file says; nothing when there is none. Raises Unreadable."""
    try:
        text = (folder / FILE).read_text(encoding="utf-8")
        content = tomllib.loads(text)
    except FileNotFoundError:
        return Project()
    except (OSError, ValueError) as error:
        raise UnreadableProject(f"can't be read ({error})") from None
    found = _strings(_table(content, "project").get("dependencies"))
    if found:
        return Project(tuple(" ".join(each.split()) for each in found), (), text)
    dynamic = _table(content, "tool", "setuptools", "dynamic", "dependencies").get("file")
    return Project((), _strings([dynamic] if isinstance(dynamic, str) else dynamic), text)


@contextmanager
def as_requirements(project: Project) -> Iterator[Path]:
    """Its dependencies as a requirements file, one a line."""
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
