"""What files of other tools ask for, and several of them together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from ..spec.problems import shown
from .entries import Line, ModelFile, Node, Root
from .node_catalogue import key

Kind = TypeVar("Kind")


@dataclass(frozen=True)
class Workflow:
    """A workflow in a file."""

    name: str
    """The file, as the user named it."""
    document: Any
    """The parsed JSON: as the page saves it where there is that, else in API format."""
    runnable: Any = None
    """The same in API format, where the file has both."""
    embedded: bool = False
    """Whether the file is no workflow itself, but an image, a video or an archive with one."""


@dataclass(frozen=True)
class Wanted:
    """What a file asks for; every entry has a note with the file's name."""

    comfyui: tuple[str, str] | None = None
    """Repository and ref; an empty repository is ComfyUI's own."""
    comfyui_notes: Sequence[str] = ()
    nodes: Sequence[Node] = ()
    packages: Sequence[Line] = ()
    preferences: Mapping[str, str] = field(default_factory=dict)
    """Package → the version that was installed: chosen where the requirements leave the choice."""
    models: Sequence[ModelFile] = ()
    roots: Sequence[Root] = ()
    args: Sequence[str] = ()
    workflows: Sequence[Workflow] = ()
    left_out: Sequence[str] = ()
    """What is missing now and why, a line each, without the file's name."""
    remarks: Sequence[str] = ()
    """What isn't taken over, and isn't missed."""


def together(wanted: Mapping[str, Wanted]) -> Wanted:
    """All of them, by the files' names: each entry once, and of two that differ the first."""
    merged = _Merged()
    for name, each in wanted.items():
        for node in each.nodes:
            merged.add(name, node_key(node), node, node.ref or node.version or "no version")
        for model in each.models:
            merged.add(name, model.target, model, model.url or model.source)
        for root in each.roots:
            merged.add(name, root.path, root, str(root.folders))
        for package in each.packages:
            merged.add(name, package.text, package, "")
        if each.comfyui:
            note = [f"for {shown(name, 100)}"]
            merged.add(name, "ComfyUI", _ComfyUI(*each.comfyui, note), each.comfyui[1])
        merged.lines += [f"{name}: {line}" for line in each.left_out]
        merged.remarks += [f"{name}: {line}" for line in each.remarks]
    comfyui = next(iter(merged.of(_ComfyUI)), None)
    return Wanted(
        comfyui=(comfyui.repository, comfyui.ref) if comfyui else None,
        comfyui_notes=comfyui.notes if comfyui else (),
        nodes=merged.of(Node),
        packages=merged.of(Line),
        preferences={
            name: version
            for each in reversed([*wanted.values()])
            for name, version in each.preferences.items()
        },
        models=merged.of(ModelFile),
        roots=merged.of(Root),
        args=next((each.args for each in wanted.values() if each.args), ()),
        workflows=[workflow for each in wanted.values() for workflow in each.workflows],
        left_out=[shown(line, 300) for line in merged.lines],
        remarks=[shown(line, 300) for line in merged.remarks],
    )


def node_key(node: Node) -> str:
    """What tells custom nodes apart."""
    return key(node.url) if node.url else node.id.casefold() or node.path


@dataclass(frozen=True)
class _ComfyUI:
    repository: str
    ref: str
    notes: Sequence[str] = ()


@dataclass
class _Merged:
    """Entries of each kind by what tells them apart, and what is to be said of them."""

    entries: dict[tuple[type, str], Any] = field(default_factory=dict)
    asked: dict[tuple[type, str], str] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def add(self, file: str, name: str, entry: Any, what: str) -> None:
        place = (type(entry), name)
        known = self.entries.get(place)
        if known is None:
            self.entries[place], self.asked[place] = entry, what
            return
        if (before := self.asked[place]) != what:
            self.lines.append(f"{file}: asks for {name} at {what}, and {before} is written")
        notes = [*dict.fromkeys([*known.notes, *entry.notes])]
        self.entries[place] = replace(known, notes=notes)

    def of(self, kind: type[Kind]) -> list[Kind]:
        return [entry for (which, _), entry in self.entries.items() if which is kind]


def noted(entries: Iterable[Any], note: str) -> list[Any]:
    """Each with this comment besides its own."""
    return [replace(entry, notes=[*entry.notes, note]) for entry in entries]
