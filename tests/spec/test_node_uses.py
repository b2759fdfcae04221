"""The nodes of workflows in all formats."""

from __future__ import annotations

from typing import Any

import pytest

from comfy_machine.spec.node_uses import NodeUse, uses


def page(*nodes: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"nodes": [*nodes], "links": [], **more}


def node(number: int, kind: str, **more: Any) -> dict[str, Any]:
    return {"id": number, "type": kind, **more}


def test_a_page_says_where_its_nodes_come_from_and_what_they_load() -> None:
    model = {"name": "a.safetensors", "url": "https://example.com/a", "directory": "vae"}
    about = {
        "cnr_id": "kjnodes",
        "aux_id": "kijai/ComfyUI-KJNodes",
        "ver": "1.2",
        "models": [model],
    }
    (found,) = uses(page(node(7, "Resize", properties=about, widgets_values=["x.png", 3, None])))
    assert found == NodeUse(
        id="7", kind="Resize", registry_id="kjnodes", repository="kijai/ComfyUI-KJNodes",
        version="1.2", models=(model,), texts=(("", "x.png"),), linked=False,
    )  # fmt: skip


def test_values_have_names_where_the_page_tells_them() -> None:
    (found,) = uses(page(node(1, "Video", widgets_values={"format": "mp4", "rate": 8})))
    assert found.texts == (("format", "mp4"),)


def test_nodes_of_the_page_alone_are_none() -> None:
    notes = (node(each, kind) for each, kind in enumerate(("Note", "Reroute", "PrimitiveNode")))
    assert uses(page(*notes)) == []


def test_subgraphs_and_groups_stand_for_their_nodes() -> None:
    inner = {"id": "a-b", "nodes": [node(1, "Inner"), node(2, "c-d")]}
    deeper = {"id": "c-d", "nodes": [node(3, "Deeper"), node(4, "a-b")]}
    group = {"nodes": [{"type": "Grouped"}]}
    found = uses(
        page(
            node(10, "a-b"), node(11, "workflow>mine"), node(12, "workflow/mine"), node(13, "a-b"),
            definitions={"subgraphs": [inner, deeper]}, extra={"groupNodes": {"mine": group}},
        )
    )  # fmt: skip
    assert [(each.id, each.kind) for each in found] == [
        ("10:1", "Inner"), ("10:2:3", "Deeper"), ("11:0", "Grouped"), ("12:0", "Grouped"),
        ("13:1", "Inner"), ("13:2:3", "Deeper"),
    ]  # fmt: skip


def test_a_group_that_the_file_lacks_is_a_class_like_any_other() -> None:
    assert [each.kind for each in uses(page(node(1, "workflow>gone")))] == ["workflow>gone"]


@pytest.mark.parametrize("wrap", [lambda it: it, lambda it: {"prompt": it, "extra_data": {}}])
def test_api_format_names_its_inputs(wrap: Any) -> None:
    graph = {"4": {"class_type": "Load", "inputs": {"name": "a.png", "to": ["3", 0], "n": 1}}}
    assert uses(wrap(graph)) == [NodeUse(id="4", kind="Load", texts=(("name", "a.png"),))]


@pytest.mark.parametrize("what", [None, [], {}, "text", {"a": 1}, {"a": {"inputs": {}}}])
def test_anything_else_is_no_workflow(what: Any) -> None:
    with pytest.raises(ValueError, match="no workflow"):
        uses(what)


@pytest.mark.parametrize(
    "rubbish",
    [
        {"properties": "x"}, {"properties": {"models": 3, "cnr_id": 4}}, {"widgets_values": None},
        {"widgets_values": {"a": {}}}, {"id": None},
    ],
)  # fmt: skip
def test_rubbish_in_a_node_is_passed_over(rubbish: dict[str, Any]) -> None:
    strange = page({"type": "Real", **rubbish}, "rubbish", {"id": 3}, definitions=[], extra=None)  # type: ignore[arg-type]
    assert [each.kind for each in uses(strange)] == ["Real"]
