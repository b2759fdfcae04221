"""Jobs that need no model: what is executed, written, cached and remembered."""

from __future__ import annotations

import uuid
from io import BytesIO
from typing import Any

import pytest
import requests
from PIL import Image

from tests.contract.client import Client, Prompt, messages, picture, preview, save
from tests.contract.features import Features


def fetch(server: Client, image: dict[str, str]) -> requests.Response:
    """One image of a job's outputs."""
    response = server.get("/view", **image)
    assert response.status_code == 200
    return response


def opened(server: Client, image: dict[str, str]) -> Image.Image:
    return Image.open(BytesIO(fetch(server, image).content))


def unique(name: str) -> str:
    return f"{name}/{uuid.uuid4().hex}"


def chain(prefix: str) -> Prompt:
    """Make, invert, scale and save."""
    source = picture(32, 16)
    source["inputs"]["color"] = 0xFF0000 + source["inputs"]["color"] % 0x10000
    scale = {
        "image": ["2", 0], "upscale_method": "lanczos",
        "width": 48, "height": 24, "crop": "disabled",
    }  # fmt: skip
    return {
        "1": source,
        "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
        "3": {"class_type": "ImageScale", "inputs": scale},
        "4": save("3", prefix),
    }


def test_a_job_is_executed_and_its_image_can_be_fetched(server: Client) -> None:
    prefix = unique("contract")
    prompt = chain(prefix)
    done = server.run(prompt)
    assert done["status"]["status_str"] == "success"
    assert done["status"]["completed"] is True
    folder, name = prefix.split("/")
    expected = {"filename": f"{name}_00001_.png", "subfolder": folder, "type": "output"}
    assert done["outputs"] == {"4": {"images": [expected]}}
    assert done["meta"]["4"] == {
        "node_id": "4",
        "display_node": "4",
        "parent_node": None,
        "real_node_id": "4",
    }
    response = fetch(server, expected)
    assert response.headers["Content-Type"] == "image/png"
    assert response.headers["Content-Disposition"] == f'filename="{name}_00001_.png"'
    image = opened(server, expected)
    assert image.size == (48, 24)
    colour = prompt["1"]["inputs"]["color"]
    inverted = tuple(255 - (colour >> shift & 255) for shift in (16, 8, 0))
    found = image.convert("RGB").getpixel((20, 10))
    assert isinstance(found, tuple)
    assert all(abs(a - b) <= 1 for a, b in zip(found, inverted, strict=True))


def test_the_answer_to_a_job_has_its_id_and_number(server: Client) -> None:
    prompt = {"1": picture(), "2": preview("1")}
    answer = server.post("/prompt", json={"prompt": prompt}).json()
    assert set(answer) == {"prompt_id", "number", "node_errors"}
    assert uuid.UUID(answer["prompt_id"])
    assert isinstance(answer["number"], int)


def test_the_history_holds_the_whole_job(server: Client, features: Features) -> None:
    prompt = {"1": picture(), "2": preview("1")}
    extra = {"extra_pnginfo": {"workflow": {"name": "test"}}}
    prompt_id = server.queue(prompt, client_id="c1", extra_data=extra)
    done = server.result(prompt_id)
    assert list(done) == ["prompt", "outputs", "status", "meta"]
    _, found_id, found_prompt, found_extra, outputs = done["prompt"]
    assert (found_id, found_prompt, outputs) == (prompt_id, prompt, ["2"])
    time_of_creation = found_extra.pop("create_time", None)
    assert isinstance(time_of_creation, int) is features.creation_times
    assert found_extra == {**extra, "client_id": "c1"}
    assert [event for event, _ in done["status"]["messages"]] == [
        "execution_start",
        "execution_cached",
        "execution_success",
    ]


def test_a_saved_image_carries_its_prompt_and_workflow(server: Client) -> None:
    prompt = {"1": picture(), "2": save("1", unique("contract"))}
    done = server.run(prompt, extra_data={"extra_pnginfo": {"workflow": {"name": "test"}}})
    image = opened(server, done["outputs"]["2"]["images"][0])
    assert '"EmptyImage"' in image.info["prompt"]
    assert image.info["workflow"] == '{"name": "test"}'


def test_an_identical_prompt_comes_from_the_cache(server: Client) -> None:
    prompt = {"1": picture(), "2": save("1", unique("contract"))}
    for attempt in range(5):  # others may use the server, and only the last prompt is kept
        first, second = server.run(prompt), server.run(prompt)
        cached = messages(second)["execution_cached"]["nodes"]
        if cached:
            break
        assert attempt < 4, "never cached"
    assert cached == ["1", "2"]
    assert second["outputs"] == first["outputs"], "the file of the first, none of its own"


def test_counters_go_on_in_the_same_folder(server: Client) -> None:
    prefix = unique("contract")
    names = []
    for _ in range(2):
        done = server.run({"1": picture(batch_size=2), "2": save("1", prefix)})
        names += [image["filename"] for image in done["outputs"]["2"]["images"]]
    stem = prefix.split("/")[1]
    assert names == [f"{stem}_{number:05}_.png" for number in (1, 2, 3, 4)]


def test_a_prefix_may_hold_the_size(server: Client) -> None:
    prefix = unique("contract")
    done = server.run({"1": picture(24, 8), "2": save("1", f"{prefix}-%width%x%height%")})
    assert done["outputs"]["2"]["images"][0]["filename"].endswith("-24x8_00001_.png")


def test_a_preview_is_a_temporary_file(server: Client) -> None:
    done = server.run({"1": picture(), "2": preview("1")})
    (image,) = done["outputs"]["2"]["images"]
    assert image["type"] == "temp"
    assert image["subfolder"] == ""
    assert image["filename"].startswith("ComfyUI_temp_")
    assert opened(server, image).size == (16, 16)


def test_a_client_may_choose_the_id_and_use_it_twice(server: Client) -> None:
    prompt_id = str(uuid.uuid4())
    for _ in range(2):
        assert server.queue({"1": picture(), "2": preview("1")}, prompt_id=prompt_id) == prompt_id
    assert server.result(prompt_id)["status"]["completed"]


@pytest.mark.parametrize(
    "prompt_id",
    ["8d1dd1b9" * 4, "8D1DD1B9-8D1D-4D1D-8D1D-8D1D8D1D8D1D", "mine", 5, ["a"]],
)
def test_an_id_that_is_no_canonical_uuid_is_refused_where_ids_are_checked(
    server: Client, features: Features, prompt_id: Any
) -> None:
    job = {"1": picture(), "2": preview("1")}
    response = server.post("/prompt", json={"prompt": job, "prompt_id": prompt_id})
    if not features.checked_ids:
        assert response.json()["prompt_id"] == str(prompt_id), "what it is makes no difference"
        server.result(str(prompt_id))
        return
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_prompt_id"
    assert response.json()["node_errors"] == {}


def test_a_node_that_raises_is_an_execution_error(server: Client) -> None:
    done = server.run({"1": picture(), "2": save("1", "../../outside")})
    assert done["status"]["status_str"] == "error"
    assert done["status"]["completed"] is False
    assert done["outputs"] == {}
    error = messages(done)["execution_error"]
    assert (error["node_id"], error["node_type"]) == ("2", "SaveImage")
    assert error["exception_type"] == "Exception"
    assert "outside the output folder is not allowed" in error["exception_message"]
    assert error["current_inputs"]["filename_prefix"] == ["../../outside"]
    assert isinstance(error["traceback"], list)


def test_the_newest_jobs_of_the_history_can_be_asked_for(server: Client) -> None:
    ids = [server.queue({"1": picture(), "2": preview("1")}) for _ in range(2)]
    for prompt_id in ids:
        server.result(prompt_id)
    assert len(server.json("/history", max_items="1")) == 1
    assert set(ids) <= set(server.json("/history"))


def test_a_job_can_be_deleted_from_the_history(server: Client) -> None:
    prompt_id = server.queue({"1": picture(), "2": preview("1")})
    server.result(prompt_id)
    assert server.post("/history", json={"delete": [prompt_id]}).status_code == 200
    assert server.json(f"/history/{prompt_id}") == {}


def test_only_the_wanted_outputs_are_executed(server: Client) -> None:
    prompt = {"1": picture(), "2": preview("1"), "3": save("1", unique("contract"))}
    done = server.run(prompt, partial_execution_targets=["3"])
    assert list(done["outputs"]) == ["3"]


def test_equal_nodes_are_executed_once_and_share_their_output(server: Client) -> None:
    prefix = unique("contract")
    done = server.run({"1": picture(), "2": save("1", prefix), "3": save("1", prefix)})
    assert set(done["outputs"]) == {"2", "3"}
    assert done["outputs"]["2"] == done["outputs"]["3"]
