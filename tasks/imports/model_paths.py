"""extra_model_paths.yaml, in which ComfyUI is told of further folders with models.

Read as ComfyUI 0.33.0 does (utils/extra_config.py).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..host.system import files
from ..host.system.failure import Failure

FILE = "extra_model_paths.yaml"
SECRET = re.compile(r"TOKEN|KEY|SECRET|PASS", re.I)
"""Names of variables whose values are written nowhere."""
NODES = "custom_nodes"
"""The type whose folders hold custom nodes."""


@dataclass(frozen=True)
class ModelPaths:
    """One section of the file."""

    name: str
    base: Path | None
    """What its folders were relative to, where the section says so."""
    is_default: bool
    """Whether its folders come before ComfyUI's own."""
    folders: Mapping[str, tuple[Path, ...]]
    """Folder type, such as checkpoints → its folders, which may be missing."""


def read(file: Path) -> list[ModelPaths]:
    """The sections, in their order. Raises Failure and OSError."""
    import yaml

    try:
        document = yaml.safe_load(files.read_bytes(file))
    except (yaml.YAMLError, ValueError, RecursionError):
        raise Failure(f"{file} isn't YAML") from None
    if document is None:
        return []
    if not isinstance(document, dict):
        raise Failure(f"{file} has no sections, each with folders by type")
    top = Path(os.path.abspath(file)).parent  # noqa: PTH100  links stay
    return [
        _section(file, top, str(name), section)
        for name, section in document.items()
        if section is not None
    ]


def _section(file: Path, top: Path, name: str, section: Any) -> ModelPaths:
    if not isinstance(section, dict):
        raise Failure(f"{file}: {name} isn't a section with folders by type")
    rest = dict(section)
    text, is_default = rest.pop("base_path", None), bool(rest.pop("is_default", False))
    base = None
    if text is not None:
        base = Path(os.path.normpath(top / _expanded(str(text))))
    folders = {}
    for kind, lines in rest.items():
        if not isinstance(lines, str):
            raise Failure(f"{file}: {name}.{kind} isn't a folder, or several, a line each")
        folders[str(kind)] = tuple(_folders(base or top, lines))
    return ModelPaths(name, base, is_default, folders)


def _expanded(text: str) -> str:
    """As ComfyUI does, without what looks like a secret: a folder is printed."""
    secrets = [name for name in os.environ if SECRET.search(name)]
    for name in secrets:
        text = re.sub(rf"\$(?:{name}\b|\{{{name}\}})", "?", text)
    return os.path.expandvars(os.path.expanduser(text))  # noqa: PTH111


def _folders(base: Path, lines: str) -> Iterator[Path]:
    for line in lines.split("\n"):
        if line:
            yield Path(os.path.normpath(base / line))
