"""Node classes: what the build had and an instance hasn't."""

from __future__ import annotations

from pathlib import Path

from comfy_machine.host.comfyui import load_result
from comfy_machine.host.comfyui.load_result import Outcome, Result
from comfy_machine.host.comfyui.node_classes import expected, missing

INFO = {
    "KSampler": {"python_module": "nodes"},
    "Load": {"python_module": "custom_nodes.other"},
    "Save": {"python_module": "custom_nodes.pack"},
}


def test_what_lacks_is_named_by_node() -> None:
    wanted = {"pack": ("Save", "Show", "Tell"), "gone": ("Go",), "whole": ("Save",)}
    assert missing(wanted, INFO) == {"pack": ["Show", "Tell"], "gone": ["Go"]}


def test_a_class_that_another_node_brings_is_there() -> None:
    assert missing({"pack": ("Load",)}, INFO) == {}


def test_nothing_is_expected_where_nothing_is_known(tmp_path: Path) -> None:
    assert expected(tmp_path / "never") == {}
    nodes = {
        "known": Result(Outcome.LOADED, classes=("A", "B")),
        "none": Result(Outcome.LOADED, classes=()),
        "unknown": Result(Outcome.LOADED),
    }
    load_result.write(tmp_path / "g", nodes, [])
    assert expected(tmp_path / "g") == {"known": ("A", "B")}
