"""Prompts that are refused, and how."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.client import Client, Prompt, checkpoint, messages, picture, preview, save
from tests.contract.features import Features


def node_error(answer: dict[str, Any], node_id: str) -> dict[str, Any]:
    """The only error of a node."""
    (error,) = answer["node_errors"][node_id]["errors"]
    found: dict[str, Any] = error
    return found


def scaled(**inputs: Any) -> Prompt:
    """A prompt with an ImageScale whose inputs are replaced; None leaves one out."""
    known = {"image": ["1", 0], "upscale_method": "area", "width": 8, "height": 8, "crop": "center"}
    chosen = {name: value for name, value in (known | inputs).items() if value is not None}
    return {
        "1": picture(),
        "2": {"class_type": "ImageScale", "inputs": chosen},
        "3": preview("2"),
    }


def with_checkpoint(name: str) -> Prompt:
    """A prompt that fails only for the checkpoint's name, with an output that depends on it."""
    samples = {"class_type": "VAEDecode", "inputs": {"vae": ["1", 2]}}
    return {"1": checkpoint(name), "2": samples, "3": save("2", "never")}


@pytest.mark.parametrize("body", [b"not json", b"", b"{"])
def test_a_body_that_is_not_json_is_500(server: Client, body: bytes) -> None:
    assert server.post("/prompt", data=body).status_code == 500


def test_a_prompt_that_is_no_object_is_500(server: Client) -> None:
    assert server.post("/prompt", json={"prompt": 5}).status_code == 500


@pytest.mark.parametrize("body", [{}, [], {"client_id": "c"}])
def test_a_body_without_prompt_is_no_prompt(server: Client, body: Any) -> None:
    response = server.post("/prompt", json=body)
    assert response.status_code == 400
    text = "No prompt provided"
    error = {"type": "no_prompt", "message": text, "details": text, "extra_info": {}}
    assert response.json() == {"error": error, "node_errors": {}}


def test_an_unknown_node_is_a_missing_node_type_or_an_invalid_prompt(
    server: Client, features: Features
) -> None:
    answer = server.refusal({"1": {"class_type": "NoSuch", "inputs": {}}})
    invalid = {
        "type": "invalid_prompt",
        "message": "Cannot execute because node NoSuch does not exist.",
        "details": "Node ID '#1'",
        "extra_info": {},
    }
    missing = {
        "type": "missing_node_type",
        "message": "Node 'NoSuch' not found. The custom node may not be installed.",
        "details": "Node ID '#1'",
        "extra_info": {"node_id": "1", "class_type": "NoSuch", "node_title": "NoSuch"},
    }
    assert answer["error"] == (missing if features.missing_node_type else invalid)
    assert answer["node_errors"] == {}


def test_a_node_without_class_is_refused_in_the_same_way(
    server: Client, features: Features
) -> None:
    error = server.refusal({"1": {"inputs": {}, "_meta": {"title": "Mine"}}})["error"]
    assert error["type"] == (
        "missing_node_type" if features.missing_node_type else "invalid_prompt"
    )
    assert ("Node 'Mine' has no class_type" in error["message"]) is features.missing_node_type


def test_a_cycle_is_refused_and_named_where_it_is_looked_for(
    server: Client, features: Features
) -> None:
    answer = server.refusal(scaled(image=["2", 0]))
    assert answer["error"]["type"] == "prompt_outputs_failed_validation"
    if not features.missing_node_type:  # both came at a time
        assert answer["node_errors"] == {}, "all recursion ends somewhere"
        return
    (error,) = answer["node_errors"]["2"]["errors"]
    assert error["type"] == "dependency_cycle"
    assert error["details"] == "2 (ImageScale) -> 2 (ImageScale)"
    assert error["extra_info"] == {"node_id": "2", "cycle_nodes": ["2"]}


@pytest.mark.parametrize("prompt", [{}, {"1": picture()}])
def test_a_prompt_without_output_node_has_no_outputs(server: Client, prompt: Prompt) -> None:
    assert server.refusal(prompt)["error"] == {
        "type": "prompt_no_outputs",
        "message": "Prompt has no outputs",
        "details": "",
        "extra_info": {},
    }


def test_a_missing_model_is_a_value_not_in_list(server: Client) -> None:
    answer = server.refusal(with_checkpoint("no-such.safetensors"))
    assert answer["error"]["type"] == "prompt_outputs_failed_validation"
    error = node_error(answer, "1")
    assert error["type"] == "value_not_in_list"
    assert error["message"] == "Value not in list"
    assert error["details"].startswith("ckpt_name: 'no-such.safetensors' not in ")
    assert error["extra_info"]["input_name"] == "ckpt_name"
    assert error["extra_info"]["received_value"] == "no-such.safetensors"
    assert answer["node_errors"]["1"]["dependent_outputs"] == ["3"]
    assert answer["node_errors"]["1"]["class_type"] == "CheckpointLoaderSimple"
    assert "3" not in answer["node_errors"], "nodes after the wrong one have no error of their own"


@pytest.mark.parametrize(
    ("inputs", "kind"),
    [
        ({"width": None}, "required_input_missing"),
        ({"width": -1}, "value_smaller_than_min"),
        ({"width": 100_000}, "value_bigger_than_max"),
        ({"width": "wide"}, "invalid_input_type"),
        ({"crop": "sideways"}, "value_not_in_list"),
        ({"image": ["1"]}, "bad_linked_input"),
    ],
)
def test_a_wrong_input_has_its_error_type(
    server: Client, inputs: dict[str, Any], kind: str
) -> None:
    answer = server.refusal(scaled(**inputs))
    error = node_error(answer, "2")
    assert error["type"] == kind
    assert error["extra_info"]["input_name"] == next(iter(inputs))
    assert answer["error"]["details"] == "", "only errors of the output itself are listed there"


def test_errors_of_the_output_itself_are_listed_in_the_details(server: Client) -> None:
    answer = server.refusal({"1": {"class_type": "PreviewImage", "inputs": {}}})
    assert answer["error"]["details"] == "Required input is missing: images"


def test_linking_outputs_to_inputs_of_another_type_is_a_mismatch(server: Client) -> None:
    samples = {"class_type": "VAEDecode", "inputs": {"samples": ["1", 0], "vae": ["1", 0]}}
    answer = server.refusal({"1": picture(), "2": samples, "3": preview("2")})
    kinds = {error["type"] for error in answer["node_errors"]["2"]["errors"]}
    assert kinds == {"return_type_mismatch"}


def test_a_link_to_a_node_that_is_not_there_is_an_exception(server: Client) -> None:
    answer = server.refusal({"3": preview("2")})
    assert node_error(answer, "3")["type"] == "exception_during_validation"
    assert node_error(answer, "3")["extra_info"]["exception_type"] == "KeyError"


def test_an_image_that_is_not_there_is_refused_by_its_node(server: Client) -> None:
    image = {"class_type": "LoadImage", "inputs": {"image": "no-such.png"}}
    answer = server.refusal({"1": image, "2": preview("1")})
    error = node_error(answer, "1")
    assert error["type"] == "custom_validation_failed"
    assert error["details"] == "image - Invalid image file: no-such.png"


def test_one_good_output_is_executed_and_the_bad_one_is_reported(server: Client) -> None:
    prompt = with_checkpoint("no-such.safetensors") | {"8": picture(), "9": preview("8")}
    response = server.post("/prompt", json={"prompt": prompt})
    assert response.status_code == 200
    errors = response.json()["node_errors"]
    assert errors["1"]["errors"][0]["type"] == "value_not_in_list"
    assert errors["1"]["dependent_outputs"] == ["3"]
    done = server.result(response.json()["prompt_id"])
    assert done["status"]["status_str"] == "success"
    assert list(done["outputs"]) == ["9"]
    assert done["prompt"][4] == ["9"]


def test_numbers_in_strings_are_converted(server: Client) -> None:
    done = server.run(scaled(width="9"))
    assert done["status"]["status_str"] == "success"
    assert "execution_success" in messages(done)
    assert done["prompt"][2]["2"]["inputs"]["width"] == 9
