"""What workflows need: only what ComfyUI gets, and what the page alone has isn't missed."""

from __future__ import annotations

from typing import Any

import pytest

from comfy_machine.spec import workflow_needs
from comfy_machine.spec.workflow_needs import NeededModel


def node(number: int, kind: str, *, marked: bool = True, **more: Any) -> dict[str, Any]:
    about = {"Node name for S&R": kind} if marked else {"previousName": "x"}
    linked = {"inputs": [{"name": "x", "type": "*", "link": 1}]}
    return {"id": number, "type": kind, "properties": about, **linked, **more}


def page(*nodes: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"nodes": [*nodes], "links": [], **more}


def test_a_class_is_needed_where_the_page_says_that_an_instance_described_it() -> None:
    label = node(5, "Label", marked=False) | {"inputs": [], "outputs": [{"links": None}]}
    found = workflow_needs.of(
        page(node(1, "Load"), node(2, "Load"), node(3, "SetNode", marked=False), label)
    )
    assert {kind: use.id for kind, use in found.classes.items()} == {"Load": "1"}
    assert {kind: use.id for kind, use in found.unsure.items()} == {"SetNode": "3"}


def test_in_a_file_without_marks_every_class_is_needed() -> None:
    assert [*workflow_needs.of(page(node(1, "Load", marked=False))).classes] == ["Load"]


@pytest.mark.parametrize("mode", [2, 4])
def test_what_is_muted_or_bypassed_needs_nothing_nor_does_what_is_in_it(mode: int) -> None:
    inner = {"id": "a-b", "nodes": [node(1, "Inner", widgets_values=["b.pt"])]}
    found = workflow_needs.of(
        page(
            node(1, "Load", mode=mode, widgets_values=["a.safetensors"]),
            node(2, "a-b", mode=mode),
            node(3, "Rest", mode=0),
            definitions={"subgraphs": [inner]},
        )
    )
    assert [*found.classes] == ["Rest"]
    assert found.models == ()


def test_models_are_named_with_either_slash_and_with_their_input_where_it_is_told() -> None:
    saved = workflow_needs.of(page(node(1, "Load", widgets_values=["XL\\a.safetensors", "x"])))
    assert saved.models == (NeededModel("1", "Load", "", "XL/a.safetensors"),)
    inputs = {"ckpt_name": "XL/a.safetensors", "url": "https://example.com/b.pt", "n": 1}
    exported = workflow_needs.of({"7": {"class_type": "Load", "inputs": inputs}})
    assert exported.models == (NeededModel("7", "Load", "ckpt_name", "XL/a.safetensors"),)
