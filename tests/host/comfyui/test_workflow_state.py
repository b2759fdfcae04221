"""What an instance lacks of a workflow, by its own answers."""

from __future__ import annotations

from typing import Any

import pytest

from comfy_machine.host.comfyui import workflow_state
from comfy_machine.host.comfyui.workflow_state import WantedWorkflow, WorkflowState
from comfy_machine.spec.workflow_needs import NeededModel

MODEL = NeededModel("4", "Load", "name", "XL/a.safetensors")


def look(
    *models: NeededModel, classes: set[str] | None = None, choices: Any = None
) -> WorkflowState:
    wanted = WantedWorkflow("w", {"Load": "4", "Save": "9"}, models)
    return workflow_state.look([wanted], classes, choices or {})[0]


BOTH = {"Load", "Save"}


def test_a_class_that_it_does_not_list_is_named_with_its_node() -> None:
    state = look(MODEL, classes={"Load"}, choices={"Load": {"name": ["XL\\a.safetensors"]}})
    assert (state.ok, state.reason) == (False, "node 9 is of class Save, which it lacks")
    assert look(MODEL, classes=BOTH, choices={"Load": {"name": ["XL\\a.safetensors"]}}).ok is True


def test_a_model_that_it_does_not_list_is_named_with_its_node() -> None:
    state = look(MODEL, classes=BOTH, choices={"Load": {"name": ["a.safetensors"], "b": ["x"]}})
    assert (state.ok, state.models) == (False, (MODEL,))
    assert state.reason == ("node 4 (Load) names the model XL/a.safetensors, which it doesn't list")


@pytest.mark.parametrize("given", [{}, {"other": ["x"]}])
def test_what_is_not_chosen_from_a_list_is_no_model(given: Any) -> None:
    assert look(MODEL, classes=BOTH, choices={"Load": given}).ok is True


def test_without_the_name_of_the_input_any_list_of_the_class_will_do() -> None:
    model = NeededModel("4", "Load", "", "a.pt")
    assert look(model, classes=BOTH, choices={"Load": {"x": [], "y": ["a.pt"]}}).ok is True
    assert look(model, classes=BOTH, choices={"Load": {"x": [], "y": ["b.pt"]}}).ok is False


def test_what_it_has_not_told_yet_is_not_known() -> None:
    assert look(MODEL).ok is None
    assert look(MODEL, classes=BOTH).ok is None
    assert look(classes=BOTH).ok is True


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ([["a", "b"], {}], ["a", "b"]),
        (["COMBO", {"options": ["a"]}], ["a"]),
        (["COMBO", {"remote": {"route": "/x"}}], None),
        (["STRING", {}], None),
        ([], None),
        (None, None),
    ],
)
def test_choices_come_in_both_forms(spec: Any, expected: Any) -> None:
    found = workflow_state.choices_of({"input": {"required": {"x": spec}, "optional": None}})
    assert found.get("x") == expected
    assert workflow_state.choices_of("rubbish") == {}
