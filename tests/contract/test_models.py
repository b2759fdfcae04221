"""Where models are looked for, and what is listed."""

from __future__ import annotations

import os
from pathlib import Path
from textwrap import dedent

import pytest

from tests.contract.client import Client, checkpoint
from tests.contract.installation import Base, Installation


def listed(server: Client, folder: str = "checkpoints") -> list[str]:
    names: list[str] = server.json(f"/models/{folder}")
    return names


def configuration(base: Base, text: str) -> list[str]:
    """The flags for an extra_model_paths.yaml of that text."""
    return ["--extra-model-paths-config", str(base.add("extra.yaml", text))]


def test_models_of_the_known_extensions_are_listed_below_subfolders(
    comfyui: Installation,
) -> None:
    base = comfyui.base()
    for name in ("b.safetensors", "sub/a.ckpt", "c.sft", "notes.txt", ".git/x.ckpt", "UP.CKPT"):
        base.add(f"models/checkpoints/{name}", "x")
    base.add("models/configs/v1.yaml", "x")
    server = comfyui.start(base)
    assert listed(server) == ["UP.CKPT", "b.safetensors", "c.sft", "sub/a.ckpt"]
    assert listed(server, "configs") == ["v1.yaml"]
    assert listed(server, "loras") == []


def test_links_are_followed_and_a_listed_name_proves_no_usable_model(
    comfyui: Installation, tmp_path: Path
) -> None:
    base = comfyui.base()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "linked.ckpt").write_text("x")
    models = base.add("models/checkpoints/empty.ckpt").parent
    (models / "folder").symlink_to(elsewhere)
    (models / "file.ckpt").symlink_to(elsewhere / "linked.ckpt")
    (models / "dangling.ckpt").symlink_to(tmp_path / "nowhere")
    server = comfyui.start(base)
    assert listed(server) == ["dangling.ckpt", "empty.ckpt", "file.ckpt", "folder/linked.ckpt"]


def test_a_listed_model_passes_validation_and_fails_when_it_is_loaded(
    comfyui: Installation,
) -> None:
    base = comfyui.base()
    base.add("models/checkpoints/empty.ckpt")
    base.add_node("use", USE_MODEL)
    server = comfyui.start(base)
    use = {"class_type": "UseModel", "inputs": {"model": ["1", 0]}}
    done = server.run({"1": checkpoint("empty.ckpt"), "2": use})
    assert done["status"]["status_str"] == "error"


def test_new_files_show_at_once(comfyui: Installation) -> None:
    base = comfyui.base()
    base.add("models/checkpoints/one.ckpt")
    server = comfyui.start(base)
    assert listed(server) == ["one.ckpt"]
    base.add("models/checkpoints/sub/two.ckpt")
    assert listed(server) == ["one.ckpt", "sub/two.ckpt"]
    choices = server.json("/object_info/CheckpointLoaderSimple")
    inputs = choices["CheckpointLoaderSimple"]["input"]["required"]
    assert inputs["ckpt_name"][0] == ["one.ckpt", "sub/two.ckpt"]


def test_a_listed_directory_that_vanishes_is_500_and_drops_nodes(comfyui: Installation) -> None:
    base = comfyui.base()
    folder = base.add("models/checkpoints/one.ckpt").parent
    server = comfyui.start(base)
    assert listed(server) == ["one.ckpt"]
    folder.rename(base.path / "moved")
    assert server.get("/models/checkpoints").status_code == 500
    described = server.json("/object_info")
    assert "CheckpointLoaderSimple" not in described
    assert "EmptyImage" in described


def test_extra_paths_are_searched_last_and_default_ones_first(comfyui: Installation) -> None:
    base = comfyui.base()
    text = """
        first:
            base_path: /srv/first
            checkpoints: ckpts
            loras: |
                loras
                more-loras
        second:
            base_path: /srv/second
            is_default: true
            checkpoints: ckpts
            loras: |
                loras
                more-loras
    """
    server = comfyui.start(base, *configuration(base, text))
    paths = server.json("/internal/folder_paths")
    own = str(base.path / "models" / "checkpoints")
    outputs = str(base.path / "output" / "checkpoints")
    assert paths["checkpoints"] == ["/srv/second/ckpts", own, "/srv/first/ckpts", outputs]
    assert paths["loras"][:2] == ["/srv/second/more-loras", "/srv/second/loras"]
    assert paths["loras"][3:5] == ["/srv/first/loras", "/srv/first/more-loras"]


def test_legacy_names_are_mapped_and_new_ones_are_made(comfyui: Installation) -> None:
    base = comfyui.base()
    text = """
        machine:
            base_path: /srv
            clip: clip
            unet: unet
            my_models: mine
    """
    server = comfyui.start(base, *configuration(base, text))
    paths = server.json("/internal/folder_paths")
    assert "/srv/clip" in paths["text_encoders"]
    assert "/srv/unet" in paths["diffusion_models"]
    assert paths["my_models"] == ["/srv/mine"]
    assert listed(server, "my_models") == []


def test_a_base_path_is_relative_to_its_file_and_expands(
    comfyui: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELS_FOR_TEST", "/srv/models")
    base = comfyui.base()
    text = """
        relative:
            base_path: here
            vae: vae
        variable:
            base_path: $MODELS_FOR_TEST
            vae: $MODELS_FOR_TEST
        home:
            base_path: ~/models
            vae: vae
        none:
            vae: there
    """
    server = comfyui.start(base, *configuration(base, text))
    paths = server.json("/internal/folder_paths")["vae"]
    assert str(base.path / "here" / "vae") in paths
    assert "/srv/models/$MODELS_FOR_TEST" in paths
    assert str(Path(os.path.expanduser("~/models/vae"))) in paths  # noqa: PTH111
    assert str(base.path / "there") in paths


def test_several_configurations_add_up(comfyui: Installation) -> None:
    base = comfyui.base()
    one = base.add("one.yaml", "a: {vae: /srv/one}")
    two = base.add("two.yaml", "a: {vae: /srv/two}")
    three = base.add("three.yaml", "a: {vae: /srv/three}")
    flag = "--extra-model-paths-config"
    server = comfyui.start(base, flag, str(one), str(two), flag, str(three))
    paths = server.json("/internal/folder_paths")["vae"]
    assert paths[1:4] == ["/srv/one", "/srv/two", "/srv/three"]


@pytest.mark.parametrize(
    "text",
    [
        "a: {base_path: /srv, vae: [one, two]}",
        "a: {base_path: /srv, vae: null}",
        "a: {base_path: /srv, vae: true}",
        "a: {base_path: null, vae: vae}",
        "",
        "a: [",
    ],
)
def test_a_wrong_configuration_crashes_the_start(comfyui: Installation, text: str) -> None:
    base = comfyui.base()
    ended = comfyui.load(base, *configuration(base, text))
    assert ended.process.returncode == 1, ended.log


def test_a_missing_configuration_crashes_the_start(comfyui: Installation) -> None:
    ended = comfyui.load(comfyui.base(), "--extra-model-paths-config", "/no/such.yaml")
    assert ended.process.returncode == 1, ended.log


def test_an_empty_section_is_skipped(comfyui: Installation) -> None:
    base = comfyui.base()
    ended = comfyui.load(base, *configuration(base, "empty:\nfull:\n  vae: /srv/vae\n"))
    assert ended.process.returncode == 0, ended.log
    assert "Adding extra search path vae /srv/vae" in ended.log


def test_a_missing_custom_nodes_folder_crashes_the_start(comfyui: Installation) -> None:
    base = comfyui.base()
    flags = configuration(base, "a: {custom_nodes: /no/such/folder}")
    assert comfyui.load(base, *flags).process.returncode == 1
    (base.path / "custom_nodes").rmdir()
    assert comfyui.load(base).process.returncode == 1


USE_MODEL = dedent(
    """
    class UseModel:
        INPUT_TYPES = classmethod(lambda cls: {"required": {"model": ("MODEL", {})}})
        RETURN_TYPES = ()
        FUNCTION = "run"
        OUTPUT_NODE = True

        def run(self, model):
            return {}

    NODE_CLASS_MAPPINGS = {"UseModel": UseModel}
    """
)
