"""What a server says about itself."""

from __future__ import annotations

import sys

import pytest

from tests.contract.client import Client
from tests.contract.features import Features

FOLDERS = """
    checkpoints configs loras vae text_encoders diffusion_models clip_vision style_models
    embeddings diffusers vae_approx controlnet gligen upscale_models custom_nodes hypernetworks
    photomaker classifiers model_patches audio_encoders
"""
NEWER_FOLDERS = """
    latent_upscale_models datasets background_removal frame_interpolation geometry_estimation
    optical_flow detection
""".split()
GET_ROUTES = [
    *("/system_stats", "/prompt", "/queue", "/history", "/object_info", "/models"),
    *("/object_info/SaveImage", "/models/checkpoints", "/history/unknown"),
]


def test_system_stats_name_the_version_the_flags_and_the_device(
    server: Client, features: Features
) -> None:
    stats = server.json("/system_stats")
    system, (device, *_) = stats["system"], stats["devices"]
    assert system["comfyui_version"]
    assert system["pytorch_version"]
    assert system["os"] == (sys.platform if features.details else "posix")
    assert ("comfy_package_versions" in system) is features.details
    assert system["argv"][0] == "main.py"
    assert "--cpu" in system["argv"]
    assert system["ram_total"] >= system["ram_free"] > 0
    assert (device["name"], device["type"], device["index"]) == ("cpu", "cpu", None)
    for name in ("vram_total", "vram_free", "torch_vram_total", "torch_vram_free"):
        assert device[name] > 0


def test_get_prompt_tells_how_many_jobs_remain(server: Client) -> None:
    remaining = server.json("/prompt")
    assert list(remaining) == ["exec_info"]
    assert isinstance(remaining["exec_info"]["queue_remaining"], int)


def test_get_queue_lists_running_and_pending_jobs(server: Client) -> None:
    queue = server.json("/queue")
    assert set(queue) == {"queue_running", "queue_pending"}


@pytest.mark.parametrize("path", GET_ROUTES)
def test_routes_also_stand_under_api(server: Client, path: str) -> None:
    assert type(server.json("/api" + path)) is type(server.json(path))


def test_internal_routes_do_not_stand_under_api(server: Client) -> None:
    assert server.get("/internal/logs").status_code == 200
    assert server.get("/api/internal/logs").status_code == 404


def test_an_unknown_path_is_404(server: Client) -> None:
    assert server.get("/no-such-path").status_code == 404


def test_a_node_is_described_in_full(server: Client, features: Features) -> None:
    described = server.json("/object_info/EmptyImage")["EmptyImage"]
    assert described["input"]["required"]["batch_size"] == [
        "INT",
        {"default": 1, "min": 1, "max": 4096},
    ]
    assert described["input_order"] == {"required": ["width", "height", "batch_size", "color"]}
    assert described["output"] == ["IMAGE"]
    assert described["output_is_list"] == [False]
    assert described["output_name"] == ["IMAGE"]
    assert described["name"] == "EmptyImage"
    assert described["display_name"].replace(" ", "") == "EmptyImage"
    assert described["python_module"] == "nodes"
    assert described["category"] == "image"
    assert described["output_node"] is False
    more = {"is_input_list": False, "has_intermediate_output": False, "search_aliases": []}
    found = {name: described[name] for name in more if name in described}
    assert found == (more if features.details else {})


def test_an_output_node_says_so(server: Client) -> None:
    described = server.json("/object_info/SaveImage")["SaveImage"]
    assert described["output_node"] is True
    assert described["output"] in ([], ["IMAGE"]), "an image goes through where it is the latter"
    assert described["input"]["hidden"] == {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"}


def test_all_nodes_are_described_as_each_one_is(server: Client) -> None:
    described = server.json("/object_info")
    for name in ("EmptyImage", "ImageInvert", "ImageScale", "PreviewImage", "SaveImage"):
        assert described[name] == server.json(f"/object_info/{name}")[name]


def test_an_unknown_node_or_job_is_an_empty_object(server: Client) -> None:
    assert server.json("/object_info/NoSuch") == {}
    assert server.json("/history/unknown") == {}


def test_models_lists_the_folder_types(server: Client) -> None:
    found = server.json("/models")
    assert [name for name in found if name not in NEWER_FOLDERS] == FOLDERS.split()
    assert found == list(server.json("/internal/folder_paths"))


@pytest.mark.parametrize("name", ["unknown", "clip", "unet"])
def test_an_unknown_or_legacy_folder_type_is_404(server: Client, name: str) -> None:
    assert server.get(f"/models/{name}").status_code == 404


def test_folder_paths_are_lists_of_absolute_paths(server: Client) -> None:
    paths = server.json("/internal/folder_paths")
    for name, found in paths.items():
        assert found, name
        assert all(path.startswith("/") for path in found)
    assert [path.rsplit("/", 1)[1] for path in paths["text_encoders"][:2]] == [
        "text_encoders",
        "clip",
    ]
    assert [path.rsplit("/", 1)[1] for path in paths["diffusion_models"][:2]] == [
        "unet",
        "diffusion_models",
    ]


def test_logs_are_one_string(server: Client) -> None:
    assert isinstance(server.json("/internal/logs"), str)


def test_free_and_interrupt_answer_200_with_nothing(server: Client) -> None:
    body = {"unload_models": True, "free_memory": True}
    for response in (
        server.post("/free", json=body),
        server.post("/interrupt", json={"prompt_id": "not-running"}),
    ):
        assert response.status_code == 200
        assert response.content == b""


def test_free_without_json_is_500(server: Client) -> None:
    assert server.post("/free", data=b"not json").status_code == 500
