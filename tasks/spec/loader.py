"""Strict YAML: plain data, with the line of every value."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from .problems import Loc, Problem, SpecError, dotted, shown

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MAX_BYTES = 1_000_000
_MAX_DEPTH = 20
_TAG = "tag:yaml.org,2002:"
_MISREAD = {"timestamp": "a date", "int": "a number", "float": "a number", "merge": "a merge key"}


@dataclass(frozen=True)
class Misread:
    """A scalar that isn't text, a plain number, true, false or null."""

    kind: str


@dataclass
class Document:
    """A machine file as data, with the problems that were found while reading it."""

    file: str
    data: dict[Any, Any] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    lines: dict[Loc, int] = field(default_factory=dict)
    """Line of each value: of its key, or of the list item."""
    refused: set[Loc] = field(default_factory=set)
    """Values that already have a problem; later checks skip them."""
    scalars: dict[Loc, tuple[str, str]] = field(default_factory=dict)
    """Each unquoted value that YAML doesn't read as text → what it is read as, and its text."""

    def line(self, loc: Loc) -> int | None:
        """The line of a location, or of the nearest enclosing one in the file."""
        while loc and loc not in self.lines:
            loc = loc[:-1]
        return self.lines.get(loc)

    def add(self, loc: Loc, message: str, line: int | None = None) -> None:
        self.problems.append(Problem(self.file, line or self.line(loc), dotted(loc), message))


def read_document(file: Path, label: str) -> Document:
    """Read a machine file. Raises SpecError when it isn't a YAML mapping."""
    text = _text(file, label)
    document = Document(label)
    try:
        _refuse_deep(text)
        root = yaml.compose(text, Loader=_LOADER)
    except yaml.YAMLError as error:
        raise SpecError([_syntax(label, error)]) from None
    if root is None:
        raise SpecError([Problem(label, None, "", "is empty: begin with workspace: and comfyui:")])
    if not isinstance(root, yaml.MappingNode):
        raise SpecError(
            [Problem(label, root.start_mark.line + 1, "", "must be a mapping: workspace: …")]
        )
    walk = _Walk(document, text)
    document.data = walk.value(root, ())
    return document


def _text(file: Path, label: str) -> str:
    def fail(message: str) -> SpecError:
        return SpecError([Problem(label, None, "", message)])

    try:
        with file.open("rb") as stream:
            raw = stream.read(_MAX_BYTES + 1)
        if len(raw) > _MAX_BYTES:
            raise fail("is larger than 1 MB, so it isn't a machine file")
        return raw.decode("utf-8-sig")
    except FileNotFoundError:
        raise fail("no such file: init writes one, or name another with machine=FILE") from None
    except IsADirectoryError:
        raise fail("is a directory: name the file in it, as machine=FILE") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise SpecError([Problem(label, line, "", "is not UTF-8: save it as UTF-8")]) from None
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise fail(f"can't be read: {why}") from None


def _refuse_deep(text: str) -> None:
    # libyaml's composer recurses in C, so a file of brackets would crash the process.
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _MAX_DEPTH:
                mark: Any = event.start_mark
                raise yaml.MarkedYAMLError(problem="nested too deeply", problem_mark=mark)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _syntax(label: str, error: yaml.YAMLError) -> Problem:
    mark: Any = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    what = getattr(error, "problem", None) or getattr(error, "reason", None) or "can't be read"
    if "document" in what:
        what = "holds more than one document: keep one, without --- in between"
    elif "cannot start any token" in what:
        what += ": indent with spaces, not tabs, and quote text that begins with @ ` or %"
    elif "mapping values are not allowed" in what:
        what += ": check the indentation, and quote a text that holds a colon and a space"
    line = mark.line + 1 if mark else None
    return Problem(label, line, "", f"isn't valid YAML: {shown(what, 200)}")


class _Walk:
    """Turns YAML nodes into data; records lines and problems."""

    def __init__(self, document: Document, text: str) -> None:
        self.document = document
        self.text = text
        self.seen: set[int] = set()
        self.aliases_told = False

    def value(self, node: yaml.Node, loc: Loc) -> Any:
        if loc:
            self.document.lines.setdefault(loc, node.start_mark.line + 1)
        if id(node) in self.seen:
            return self.alias(loc)
        self.seen.add(id(node))
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node, loc)
        expected = "map" if isinstance(node, yaml.MappingNode) else "seq"
        if node.tag != _TAG + expected:
            return self.tag(node, loc)
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, loc)
        return [self.value(item, (*loc, index)) for index, item in enumerate(node.value)]

    def mapping(self, node: yaml.MappingNode, loc: Loc) -> dict[Any, Any]:
        data: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            key = self.key(key_node)
            if key is None:
                self.document.add(loc, "a key must be a plain word", line)
                continue
            here = (*loc, key)
            if key_node.tag == _TAG + "merge":
                self.document.add(loc, "merge keys (<<) are refused: write the fields out", line)
            elif key in data:
                first = self.document.lines[here]
                self.document.add(here, f"is given twice, first in line {first}", line)
            else:
                self.document.lines[here] = line
                data[key] = self.value(value_node, here)
        return data

    def key(self, node: yaml.Node) -> str | int | None:
        if not isinstance(node, yaml.ScalarNode) or id(node) in self.seen:
            return None
        self.seen.add(id(node))
        if node.tag == _TAG + "int" and re.fullmatch(r"0|-?[1-9]\d{0,8}", node.value):
            return int(node.value)
        # As keys, on: and no: are words, not true and false.
        return str(node.value)

    def scalar(self, node: yaml.ScalarNode, loc: Loc) -> Any:
        kind = node.tag.removeprefix(_TAG)
        text = str(node.value)
        if kind == "str":
            return text
        value: Any = Misread(kind)
        if kind == "null":
            return None
        if kind == "bool" and text.lower() in {"true", "yes", "on", "false", "no", "off"}:
            value = text.lower() in {"true", "yes", "on"}
        elif kind == "int" and re.fullmatch(r"0|-?[1-9]\d{0,17}", text):
            value = int(text)
        elif kind == "float" and re.fullmatch(r"-?\d{1,15}\.\d{1,15}", text):
            value = float(text)
        elif kind not in _MISREAD and kind != "bool":
            return self.tag(node, loc)
        self.document.scalars[loc] = (_MISREAD.get(kind, "true or false"), text)
        return value

    def tag(self, node: yaml.Node, loc: Loc) -> Misread:
        tag = node.tag.replace(_TAG, "!!")
        self.document.refused.add(loc)
        self.document.add(loc, f"the tag {shown(tag)} is refused: remove it")
        return Misread("tag")

    def alias(self, loc: Loc) -> Misread:
        self.document.refused.add(loc)
        if not self.aliases_told:
            self.aliases_told = True
            for event in yaml.parse(self.text, Loader=_LOADER):
                if isinstance(event, yaml.AliasEvent):
                    mark: Any = event.start_mark
                    what = f"the alias *{shown(event.anchor or '')} is refused"
                    self.document.add((), f"{what}: write the value out", mark.line + 1)
        return Misread("alias")
