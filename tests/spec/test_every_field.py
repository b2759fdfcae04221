"""Every field of the schema stands in machine.yaml with its default, and some code reads it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args

import pytest
import yaml

from comfy_machine.spec.model import Model, Spec
from tests.rig import PROJECT

TEXT = (PROJECT / "machine.yaml").read_text()
#: What this machine says of its own, where the default is another or there is none.
CHOSEN = {"workspace", "comfyui", "comfyui.ref", "custom_nodes"}
#: Of these the default depends on others: what is written is what it comes to.
DERIVED = {"comfyui.repo", "models.tokens"}


@dataclass(frozen=True)
class Field:
    """`path` has [] for the items of a list or mapping."""

    path: str
    name: str
    default: Any
    inner: type[Model] | None

    @property
    def section(self) -> str:
        return re.split(r"[.\[]", self.path)[0]

    @property
    def in_items(self) -> bool:
        return "[]" in self.path


def model_in(annotation: Any) -> type[Model] | None:
    if isinstance(annotation, type) and issubclass(annotation, Model):
        return annotation
    return next(filter(None, map(model_in, get_args(annotation))), None)


def fields(model: type[Model], above: str = "") -> Iterator[Field]:
    for name, field in model.model_fields.items():
        inner = model_in(field.annotation)
        default = None if field.is_required() else field.get_default(call_default_factory=True)
        yield Field(f"{above}{name}", name, default, inner)
        if inner:
            yield from fields(inner, f"{above}{name}{'' if inner is field.annotation else '[]'}.")


FIELDS = list(fields(Spec))


def sections() -> dict[str, str]:
    """The text of each top-level field, with the comment above it."""
    found: dict[str, str] = {}
    waiting: list[str] = []
    name = ""
    for line in TEXT.splitlines():
        if match := re.match(r"(\w+):", line):
            name = match[1]
        if name and (line.startswith("#") or not line):
            waiting.append(line)
            continue
        if name:
            found[name] = "\n".join([*filter(None, [found.get(name)]), *waiting, line])
            waiting = []
    return found


SECTIONS = sections()


def written(path: str) -> Any:
    """What machine.yaml says of a field. Raises KeyError where it says nothing."""
    value = yaml.safe_load(TEXT)
    for name in path.split("."):
        value = value[name]
    return value


def plain(value: Any) -> Any:
    """A default as YAML would have it."""
    if isinstance(value, Model):
        return {name: plain(each) for name, each in dict(value).items()}
    if isinstance(value, (tuple, list)):
        return [plain(each) for each in value]
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    return value if value is None or isinstance(value, (bool, int)) else str(value)


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.path)
def test_it_stands_in_machine_yaml_with_its_default(field: Field) -> None:
    try:
        value = None if field.in_items else written(field.path)
    except KeyError:
        value = None
    if value is not None:
        if field.path not in CHOSEN | DERIVED and not field.inner:
            assert value == plain(field.default)
        return
    comments = "\n".join(re.findall(r"#.*", SECTIONS[field.section]))
    shown = re.findall(rf"[#\s{{]{field.name}: *(.+)", comments)
    shown += re.findall(rf"\b{field.name}:", SECTIONS[field.section]) if not field.in_items else []
    assert shown, "it is named nowhere"
    if isinstance(field.default, (bool, int)):
        text = "true" if field.default is True else str(field.default).lower()
        assert any(each.startswith(text) for each in shown), f"its default is {text}"


def test_machine_yaml_names_nothing_else() -> None:
    """Of what is commented out; what is not would be refused."""
    known = {field.name for field in FIELDS}
    for section, text in SECTIONS.items():
        named = set(re.findall(r"^ *# +(?:- )?([a-z_0-9]+): ", text, re.M))
        here = {field.name for field in FIELDS if field.section == section}
        assert named <= here, section
    assert set(SECTIONS) <= known


def test_a_field_that_is_no_more_would_be_found() -> None:
    assert "read_only" in {field.name for field in FIELDS if field.in_items}
    assert len(FIELDS) > 70
    assert set(SECTIONS) == set(Spec.model_fields)


#: Where instances are made of the fields.
MAKES = PROJECT / "tasks" / "spec" / "machine.py"
READ = {
    node.attr
    for file in (PROJECT / "tasks").rglob("*.py")
    if "spec" not in file.relative_to(PROJECT).parts or file == MAKES
    for node in ast.walk(ast.parse(file.read_text()))
    if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
}


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.path)
def test_code_reads_it(field: Field) -> None:
    assert field.name in READ, "nothing heeds it"
