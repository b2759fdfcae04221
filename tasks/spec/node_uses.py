"""The nodes that a workflow uses, in whichever format it is.

Source of the formats: ComfyUI's frontend 1.2x (nodes, `definitions.subgraphs`, `extra.groupNodes`)
and `server.py` (API format).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

OF_THE_PAGE = frozenset(["MarkdownNote", "Note", "PrimitiveNode", "Reroute"])
"""What only the page knows: no instance has such a class."""
MARKS = ("Node name for S&R", "cnr_id", "aux_id")
"""Properties of nodes whose class an instance described; what JavaScript alone has lacks them.
Source: saveImageExtraOutput.ts of ComfyUI's frontend, workflow-metadata.js of ComfyUI-Manager. Of
1,154 published files no node that only the page has was marked (2026-11)."""
MOST_NODES = 100_000
"""Of a workflow; the largest of 1,710 published ones has some thousands."""
NOT_SENT = (2, 4)
"""The modes of a node that is muted or bypassed."""
GROUPS = ("workflow/", "workflow>")
"""How the class of a group node begins; the rest is its name."""


@dataclass(frozen=True)
class NodeUse:
    """One node of a workflow."""

    id: str
    """As the page numbers it; inside subgraphs and groups after theirs: `12:3`."""
    kind: str
    """Its class."""
    registry_id: str = ""
    """`cnr_id`: the node package's id in the official registry; comfy-core: ComfyUI itself."""
    repository: str = ""
    """`aux_id`: owner/name at GitHub."""
    version: str = ""
    """`ver`: a version of the registry, or a commit."""
    models: tuple[Mapping[str, Any], ...] = ()
    """`properties.models`: each with name, url and directory."""
    texts: tuple[tuple[str, str], ...] = ()
    """Values that are texts, each with the name of its input where the format tells."""
    sent: bool = True
    """Whether ComfyUI gets it: it isn't muted or bypassed, nor within what is."""
    described: bool = True
    """Whether an instance described its class to the page, which marks such nodes. In API format
    all are."""
    linked: bool = True
    """Whether it has a link to another node."""


@dataclass(frozen=True)
class _Known:
    """What nodes may stand for."""

    subgraphs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    groups: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def uses(workflow: Any) -> list[NodeUse]:
    """All nodes that an instance must have. Raises ValueError for what is no workflow."""
    if isinstance(workflow, dict) and isinstance(workflow.get("nodes"), list):
        return [*_of_page(workflow["nodes"], _known(workflow), count(), "", frozenset())]
    if isinstance(workflow, dict) and isinstance(workflow.get("prompt"), dict):
        workflow = workflow["prompt"]
    if isinstance(workflow, dict) and workflow and all(map(_is_api_node, workflow.values())):
        return [*_of_api(workflow)]
    raise ValueError("it is no workflow of ComfyUI")


def _is_api_node(node: Any) -> bool:
    return isinstance(node, dict) and isinstance(node.get("class_type"), str)


def _known(workflow: Mapping[str, Any]) -> _Known:
    definitions, extra = _mapping(workflow.get("definitions")), _mapping(workflow.get("extra"))
    subgraphs = definitions.get("subgraphs")
    return _Known(
        {
            str(each.get("id")): each
            for each in (subgraphs if isinstance(subgraphs, list) else ())
            if isinstance(each, dict)
        },
        {str(name): _mapping(each) for name, each in _mapping(extra.get("groupNodes")).items()},
    )


def _of_page(
    nodes: Any,
    known: _Known,
    seen: Iterator[int],
    before: str,
    within: frozenset[str],
    sent: bool = True,
) -> Iterator[NodeUse]:
    for index, node in enumerate(nodes if isinstance(nodes, list) else ()):
        # Subgraphs of subgraphs of subgraphs may stand for more than any machine can hold.
        if next(seen) >= MOST_NODES:
            raise ValueError(f"it has more than {MOST_NODES} nodes")
        if not isinstance(node, dict) or not isinstance(node.get("type"), str):
            continue
        kind, number = node["type"], f"{before}{node.get('id', index)}"
        inner, is_sent = _inner(kind, known), sent and node.get("mode") not in NOT_SENT
        if inner is not None:
            # A subgraph can't hold itself, but a file may say so.
            if kind not in within:
                yield from _of_page(
                    inner.get("nodes"), known, seen, f"{number}:", within | {kind}, is_sent
                )
        elif kind not in OF_THE_PAGE:
            yield _page_node(node, number, is_sent)


def _inner(kind: str, known: _Known) -> Mapping[str, Any] | None:
    """The subgraph or group that a node of this class stands for."""
    if kind in known.subgraphs:
        return known.subgraphs[kind]
    for start in GROUPS:
        if kind.startswith(start):
            return known.groups.get(kind.removeprefix(start))
    return None


def _page_node(node: Mapping[str, Any], number: str, sent: bool) -> NodeUse:
    properties = _mapping(node.get("properties"))
    values = node.get("widgets_values")
    listed = values if isinstance(values, list) else ()
    named = values.items() if isinstance(values, dict) else (("", each) for each in listed)
    models = properties.get("models")
    return NodeUse(
        id=number,
        kind=node["type"],
        registry_id=_text(properties.get("cnr_id")),
        repository=_text(properties.get("aux_id")),
        version=_text(properties.get("ver")),
        models=tuple(
            each for each in (models if isinstance(models, list) else ()) if isinstance(each, dict)
        ),
        texts=tuple((str(name), each) for name, each in named if isinstance(each, str)),
        sent=sent,
        described=any(properties.get(mark) for mark in MARKS),
        linked=_is_linked(node),
    )


def _is_linked(node: Mapping[str, Any]) -> bool:
    ends = [node.get("inputs"), node.get("outputs")]
    return any(
        isinstance(each, dict) and (each.get("link") is not None or each.get("links"))
        for side in ends
        for each in (side if isinstance(side, list) else ())
    )


def _of_api(workflow: Mapping[str, Any]) -> Iterator[NodeUse]:
    for number, node in workflow.items():
        inputs = _mapping(node.get("inputs"))
        texts = tuple((str(name), each) for name, each in inputs.items() if isinstance(each, str))
        yield NodeUse(id=str(number), kind=node["class_type"], texts=texts)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    return value.strip() if isinstance(value, str) else ""
