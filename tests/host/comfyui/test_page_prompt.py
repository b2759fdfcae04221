"""From the page's format to the prompt that the page sends, or a refusal with its reason."""

from __future__ import annotations

from typing import Any

import pytest

from comfy_machine.host.comfyui.page_graph import NotConvertible
from comfy_machine.host.comfyui.page_prompt import convert

SEED = ["INT", {"default": 0, "control_after_generate": True}]
CHOICE = {"key": "big", "inputs": {"required": {"width": ["INT", {"default": 8}]}}}
INFO: dict[str, Any] = {
    "Make": {"input": {"required": {"width": ["INT", {"default": 64}], "color": ["INT", {}]}}},
    "Load": {
        "input": {
            "required": {"image": [["a.png", "b.png"], {"image_upload": True}]},
            "optional": {"channel": [["alpha", "red"], {}]},
        }
    },
    "Sample": {
        "input": {
            "required": {"image": ["IMAGE"], "seed": SEED, "steps": ["INT", {"default": 20}]},
            "optional": {"sampler": ["COMBO", {"options": ["euler", "ddim"]}]},
        },
        "input_order": {"required": ["image", "seed", "steps"], "optional": ["sampler"]},
    },
    "Pass": {"input": {"required": {"model": ["MODEL"], "image": ["IMAGE"]}}},
    "Size": {"input": {"required": {"mode": ["COMFY_DYNAMICCOMBO_V3", {"options": [CHOICE]}]}}},
    "Save": {"input": {"required": {"images": ["IMAGE"], "prefix": ["STRING", {}]}}},
    "Named": {"input": {"required": {"images": ["IMAGE"], "rate": ["FLOAT", {}]}}},
}


class Page:
    """A workflow as the page saves it."""

    def __init__(self) -> None:
        self.nodes: list[dict[str, Any]] = []
        self.links: list[list[Any]] = []
        self.subgraphs: list[dict[str, Any]] = []

    def add(self, number: int, kind: str, *values: Any, mode: int = 0, **links: Any) -> None:
        """A node; `links`: input → (type, node, output), or a type alone."""
        inputs: list[dict[str, Any]] = []
        for name, of in links.items():
            link = None
            if isinstance(of, tuple):
                link = len(self.links) + 1
                self.links.append([link, of[1], of[2], number, len(inputs), of[0]])
            kind_of = of[0] if isinstance(of, tuple) else of
            widget = {} if kind_of in ("IMAGE", "MODEL", "*") else {"widget": {"name": name}}
            inputs.append({"name": name, "type": kind_of, "link": link, **widget})
        outputs = [{"name": "out", "type": "IMAGE"}]
        self.nodes.append({"id": number, "type": kind, "mode": mode, "inputs": inputs,
                           "outputs": outputs, "widgets_values": [*values]})  # fmt: skip

    @property
    def document(self) -> dict[str, Any]:
        return {"nodes": self.nodes, "links": self.links,
                "definitions": {"subgraphs": self.subgraphs}}  # fmt: skip

    def sent(self) -> dict[str, Any]:
        return {key: node["inputs"] for key, node in convert(self.document, INFO).items()}


def test_values_get_their_names_and_what_only_the_page_has_of_them_is_left_out() -> None:
    page = Page()
    page.add(1, "Load", "b.png", "image", "red")
    page.add(2, "Sample", 7, "randomize", 30, "ddim", image=("IMAGE", 1, 0))
    page.add(3, "Size", "big", 12)
    assert page.sent() == {
        "1": {"image": "b.png", "channel": "red"},
        "2": {"image": ["1", 0], "seed": 7, "steps": 30, "sampler": "ddim"},
        "3": {"mode": "big", "mode.width": 12},
    }


def test_what_the_file_does_not_have_yet_has_its_default() -> None:
    page = Page()
    page.add(1, "Make", 5, 0)
    page.add(2, "Sample", 7, image=("IMAGE", 1, 0))
    assert page.sent()["2"] == {"image": ["1", 0], "seed": 7, "steps": 20, "sampler": "euler"}


def test_values_that_have_names_keep_them() -> None:
    page = Page()
    page.add(1, "Make", 5, 0)
    page.add(2, "Named", images=("IMAGE", 1, 0))
    page.nodes[1]["widgets_values"] = {"rate": 8, "crf": 19, "preview": {"hidden": True}}
    assert page.sent()["2"] == {"images": ["1", 0], "rate": 8, "crf": 19}


def test_a_link_replaces_a_value_and_one_from_a_primitive_is_its_value() -> None:
    page = Page()
    page.add(1, "PrimitiveNode", 99, "fixed")
    page.add(2, "Make", 1, 2, width=("INT", 1, 0))
    page.add(3, "Note", "read me")
    assert page.sent() == {"2": {"width": 99, "color": 2}}


def test_reroutes_and_named_variables_are_followed() -> None:
    page = Page()
    page.add(1, "Make", 5, 0)
    page.add(2, "Reroute", x=("*", 1, 0))
    page.add(3, "SetNode", "it", x=("IMAGE", 2, 0))
    page.add(4, "GetNode", "it")
    page.add(5, "Save", "p", images=("IMAGE", 4, 0))
    assert page.sent()["5"] == {"images": ["1", 0], "prefix": "p"}


def test_a_bypassed_node_gives_on_what_fits_and_a_muted_one_nothing() -> None:
    page = Page()
    page.add(1, "Make", 5, 0)
    page.add(2, "Pass", mode=4, model="MODEL", image=("IMAGE", 1, 0))
    page.add(3, "Save", "p", images=("IMAGE", 2, 0))
    page.add(4, "Make", 5, 0, mode=2)
    page.add(5, "Save", "q", images=("IMAGE", 4, 0))
    assert page.sent() == {
        "1": {"width": 5, "color": 0}, "3": {"images": ["1", 0], "prefix": "p"},
        "5": {"prefix": "q"},
    }  # fmt: skip


@pytest.mark.parametrize(("kept", "width"), [([], 5), ([77], 77)])
def test_subgraphs_are_opened_and_their_inputs_have_the_values_of_where_they_are_used(
    kept: list[int], width: int
) -> None:
    inner = Page()
    inner.add(1, "Make", 5, 0, width="INT", color="INT")
    inner.nodes[0]["inputs"][0]["link"] = 8
    page = Page()
    page.subgraphs.append({
        "id": "a-b", "nodes": inner.nodes, "inputs": [{"name": "width", "type": "INT"}],
        "outputs": [{"name": "out", "type": "IMAGE"}],
        "links": [
            {"id": 8, "origin_id": -10, "origin_slot": 0, "target_id": 1, "target_slot": 0},
            {"id": 9, "origin_id": 1, "origin_slot": 0, "target_id": -20, "target_slot": 0},
        ],
    })  # fmt: skip
    page.add(2, "a-b", *kept, width="INT")
    page.add(3, "Save", "p", images=("IMAGE", 2, 0))
    page.add(4, "a-b", mode=2)
    assert page.sent() == {
        "2:1": {"width": width, "color": 0}, "3": {"images": ["2:1", 0], "prefix": "p"},
    }  # fmt: skip


def refused(page: Page) -> str:
    with pytest.raises(NotConvertible) as found:
        page.sent()
    return str(found.value)


def test_what_does_not_fit_is_said_and_not_guessed() -> None:
    page = Page()
    page.add(1, "Sample", "randomize", 7)
    assert refused(page) == "node 1 (Sample): 'randomize' isn't a value of seed"


def test_a_node_that_only_the_page_knows_is_refused_where_others_need_it() -> None:
    page = Page()
    page.add(1, "Mystery")
    page.add(2, "Save", "p", images="IMAGE")
    assert page.sent() == {"2": {"prefix": "p"}}
    page.nodes.pop()
    page.add(2, "Save", "p", images=("IMAGE", 1, 0))
    assert refused(page) == "only the page knows what node 1 (Mystery) does"


def test_a_group_node_a_loop_and_an_empty_page_are_refused() -> None:
    page = Page()
    assert refused(page) == "it has no node that an instance knows"
    page.add(1, "workflow>mine")
    assert refused(page) == "node 1 is a group node, which is outdated"
    page = Page()
    page.add(1, "Reroute", x=("*", 1, 0))
    page.add(2, "Save", "p", images=("IMAGE", 1, 0))
    assert refused(page) == "node 2 (Save): a link leads back to itself"
    page = Page()
    page.subgraphs.append({"id": "a-b", "nodes": [{"id": 1, "type": "a-b"}]})
    page.add(1, "a-b")
    assert refused(page) == "a subgraph is in itself"


@pytest.mark.parametrize(
    "rubbish",
    [
        {"inputs": 3}, {"inputs": [{"link": 1}]}, {"inputs": ["x"]}, {"widgets_values": 3},
        {"inputs": [{"link": [], "name": "x"}]}, {"outputs": 7, "mode": "x"},
    ],
)  # fmt: skip
def test_rubbish_is_refused_or_passed_over(rubbish: Any) -> None:
    page = Page()
    page.add(1, "Make", 5, 0)
    page.nodes[0] |= rubbish
    page.links = [[1, 1], {"id": []}, "x", [1, 9, "y", 1, {}]]  # type: ignore[list-item]
    try:
        page.sent()
    except NotConvertible:
        return
