"""Jinja2 templates of this project, rendered strictly: an unknown name is an error."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .program_files import TOP

FOLDER = TOP / "templates"


def _to_yaml(value: str | Sequence[str]) -> str:
    """YAML in one line, texts in double quotes; YAML doesn't understand JSON's surrogate pairs."""
    import yaml

    text = yaml.safe_dump(value, default_style='"', default_flow_style=True, width=1 << 20)
    return str(text).strip()


def render(
    name: str, *, filters: Mapping[str, Callable[[str], str]] | None = None, **values: Any
) -> str:
    """The text of a template; `filters` are filters besides Jinja2's."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.filters |= {"toyaml": _to_yaml, **(filters or {})}
    return environment.get_template(name).render(**values)
