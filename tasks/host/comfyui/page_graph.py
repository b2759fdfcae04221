"""The graph of a workflow as ComfyUI's page saves it: what the page resolves before it sends a job.

Subgraphs are opened, nodes that are muted or bypassed are passed over, and so are those that only
the page has. Source: ExecutableNodeDTO.ts and graphToPrompt of ComfyUI's frontend 1.3x and 1.4x;
SetNode and GetNode are those of ComfyUI-KJNodes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from ...spec.node_uses import GROUPS, OF_THE_PAGE

MUTED, BYPASSED = 2, 4
INSIDE, OUTSIDE = -10, -20
"""The ids that stand for the inputs and outputs of a subgraph, in it."""
SET, GET = "SetNode", "GetNode"
DEEPEST = 200
"""Links that are followed one after the other."""


class NotConvertible(ValueError):  # noqa: N818  what it is, in one sentence
    """Why it can't be known what the page would send."""


@dataclass(frozen=True)
class Output:
    """An output of a node that is sent."""

    node: str
    slot: int


@dataclass(frozen=True)
class Constant:
    """A value instead of a link."""

    value: Any


Source: TypeAlias = "Output | Constant | None"


@dataclass
class Scope:
    """The workflow, or a subgraph where it is used."""

    before: str
    """What the ids of its nodes begin with."""
    nodes: Mapping[str, Mapping[str, Any]]
    links: Mapping[Any, tuple[str, int, str, int]]
    """Id → node and output, node and input."""
    definition: Mapping[str, Any] = field(default_factory=dict)
    """Of the subgraph."""
    parent: Scope | None = None
    instance: Mapping[str, Any] = field(default_factory=dict)
    """The node of the parent that stands for it."""


class PageGraph:
    """Raises NotConvertible for a group node, and for what leads back to itself."""

    def __init__(self, workflow: Mapping[str, Any]) -> None:
        found = _mapping(workflow.get("definitions")).get("subgraphs")
        self._subgraphs = {str(each.get("id")): each for each in _mappings(found)}
        self._inner: dict[str, Scope] = {}
        self.top = _scope("", workflow)

    def nodes(self, scope: Scope | None = None) -> Iterator[tuple[Scope, Mapping[str, Any]]]:
        """Those that may be sent, with the scope of each."""
        scope = scope or self.top
        if scope.before.count(":") > DEEPEST:
            raise NotConvertible("a subgraph is in itself")
        for node in scope.nodes.values():
            kind = str(node.get("type"))
            if node.get("mode") in (MUTED, BYPASSED) or kind in OF_THE_PAGE:
                continue
            if kind in self._subgraphs:
                yield from self.nodes(self._within(scope, node))
            elif kind.startswith(GROUPS):
                raise NotConvertible(f"node {_id(scope, node)} is a group node, which is outdated")
            else:
                yield scope, node

    def source(self, scope: Scope, link: Any, left: int = DEEPEST) -> Source:
        """What a link comes from in the end; None: from nothing that is sent."""
        if left == 0:
            raise NotConvertible("a link leads back to itself")
        if link not in scope.links:
            return None
        origin, slot, _, _ = scope.links[link]
        if origin == str(INSIDE):
            return self._from_outside(scope, slot, left - 1)
        node = scope.nodes.get(origin)
        if node is None or node.get("mode") == MUTED:
            return None
        kind = str(node.get("type"))
        if node.get("mode") == BYPASSED:
            return self._input(scope, node, _passed(node, slot), left - 1)
        if kind in ("Reroute", SET):
            return self._input(scope, node, 0, left - 1)
        if kind == "PrimitiveNode":
            values = node.get("widgets_values")
            return Constant(values[0]) if isinstance(values, list) and values else None
        if kind == GET:
            return self._variable(scope, node, left - 1)
        if kind in self._subgraphs:
            inner = self._within(scope, node)
            ends = (key for key, each in inner.links.items() if each[2:] == (str(OUTSIDE), slot))
            return self.source(inner, next(ends, None), left - 1)
        return Output(_id(scope, node), slot)

    def _within(self, scope: Scope, node: Mapping[str, Any]) -> Scope:
        name = _id(scope, node)
        if name not in self._inner:
            definition = self._subgraphs[str(node.get("type"))]
            inner = _scope(f"{name}:", definition)
            inner.definition, inner.parent, inner.instance = definition, scope, node
            self._inner[name] = inner
        return self._inner[name]

    def _input(self, scope: Scope, node: Mapping[str, Any], index: int | None, left: int) -> Source:
        inputs = _mappings(node.get("inputs"))
        if index is None or index >= len(inputs):
            return None
        return self.source(scope, inputs[index].get("link"), left)

    def _from_outside(self, scope: Scope, slot: int, left: int) -> Source:
        declared = _mappings(scope.definition.get("inputs"))
        if scope.parent is None or slot >= len(declared):
            return None
        name = declared[slot].get("name")
        for each in _mappings(scope.instance.get("inputs")):
            if each.get("name") == name and each.get("link") is not None:
                return self.source(scope.parent, each["link"], left)
        values = scope.instance.get("widgets_values")
        places = [place for place in range(len(declared)) if self._has_value(scope, place)]
        # Earlier pages kept all values in the nodes inside.
        if slot not in places or not isinstance(values, list) or len(values) != len(places):
            return None
        value = values[places.index(slot)]
        return None if value is None else Constant(value)

    def _has_value(self, scope: Scope, slot: int) -> bool:
        """Whether an input of a subgraph is one that has a value on the page."""
        for origin, of, target, at in scope.links.values():
            if origin == str(INSIDE) and of == slot:
                inputs = _mappings(scope.nodes.get(target, {}).get("inputs"))
                return at < len(inputs) and bool(inputs[at].get("widget"))
        return False

    def _variable(self, scope: Scope, node: Mapping[str, Any], left: int) -> Source:
        """What a GetNode gets: it and the SetNode of that name are in one scope, or around it."""
        name, around = _first_value(node), scope
        while True:
            for each in around.nodes.values():
                if each.get("type") == SET and _first_value(each) == name:
                    return self._input(around, each, 0, left)
            if around.parent is None:
                return None
            around = around.parent


def _passed(node: Mapping[str, Any], slot: int) -> int | None:
    """The input that a bypassed node gives on as this output."""
    inputs, outputs = _mappings(node.get("inputs")), _mappings(node.get("outputs"))
    kind = outputs[slot].get("type") if slot < len(outputs) else None
    order = [slot] if slot < len(inputs) else []
    order += [index for index, each in enumerate(inputs) if each.get("type") == kind]
    return next((index for index in order if inputs[index].get("type") in (kind, "*")), None)


def _scope(before: str, graph: Mapping[str, Any]) -> Scope:
    links: dict[Any, tuple[str, int, str, int]] = {}
    for link in graph.get("links") or ():
        if isinstance(link, list) and len(link) >= 5:
            links[link[0]] = (str(link[1]), link[2], str(link[3]), link[4])
        elif isinstance(link, dict):
            links[link.get("id")] = (
                str(link.get("origin_id")),
                link.get("origin_slot", 0),
                str(link.get("target_id")),
                link.get("target_slot", 0),
            )
    nodes = {str(each.get("id")): each for each in _mappings(graph.get("nodes"))}
    return Scope(before, nodes, links)


def _id(scope: Scope, node: Mapping[str, Any]) -> str:
    return f"{scope.before}{node.get('id')}"


def _first_value(node: Mapping[str, Any]) -> Any:
    values = node.get("widgets_values")
    return values[0] if isinstance(values, list) and values else None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _mappings(value: Any) -> list[Mapping[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
