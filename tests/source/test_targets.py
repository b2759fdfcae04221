"""Folder types are the pinned ComfyUI's own: what it looks into, and what it doesn't."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from tests.conftest import MachineMaker
from tests.rig import SIMULATOR, Rig


@pytest.fixture
def model(tmp_path: Path) -> str:
    file = tmp_path / "x.safetensors"
    file.write_bytes(b"weights")
    return str(file)


def comfyui_with(kind: str, folder: Path) -> Path:
    """The simulator as one that has another folder type in place of audio_encoders."""
    shutil.copytree(SIMULATOR, folder)
    module = folder / "folder_paths.py"
    text = module.read_text()
    assert text.count('"audio_encoders"') == 2
    module.write_text(text.replace('"audio_encoders"', f'"{kind}"'))
    return folder


def rig_of(machine: MachineMaker, model: str, *targets: str, comfyui: Path = SIMULATOR) -> Rig:
    files = [{"target": target, "source": model} for target in targets]
    return machine(comfyui={"path": str(comfyui)}, models={"files": files})


def test_a_folder_that_no_type_has_is_a_warning_with_the_one_that_was_meant(
    machine: MachineMaker, model: str
) -> None:
    rig = rig_of(
        machine, model, "checkpoint/a.safetensors", "checkpoint/b.safetensors",
        "models/loras/c.safetensors", "of_a_node/d.safetensors", "unet/e.safetensors",
        "beside.safetensors",
    )  # fmt: skip
    strange = {
        "checkpoint/a.safetensors": "itself doesn't look into checkpoint/; did you mean "
        "checkpoints?",
        "models/loras/c.safetensors": "is below the models folder already; did you mean "
        "loras/c.safetensors?",
        "of_a_node/d.safetensors": "itself doesn't look into of_a_node/: right if a custom node "
        "does",
        "beside.safetensors": "is in no folder, where ComfyUI looks for nothing: begin with one, "
        "as in checkpoints/beside.safetensors",
    }
    for run in (rig.doit("build"), rig.doit("build")):
        said = [line for line in run.output.splitlines() if line.startswith("! ")]
        assert len([line for line in said if "models.files" in line]) == len(said)
        lines = rig.file.read_text().splitlines()
        for line, (target, why) in zip(said, strange.items(), strict=True):
            assert f"machine.yaml:{lines.index(f'  - target: {target}') + 1}: " in line
            assert line.endswith(why)
    assert run.executed == set()


def test_a_folder_type_is_known_by_the_comfyui_that_has_it(
    machine: MachineMaker, model: str, tmp_path: Path
) -> None:
    newer = comfyui_with("optical_flow", tmp_path / "newer")
    rig = rig_of(
        machine, model, "optical_flow/x.safetensors", "audio_encoders/x.safetensors", comfyui=newer
    )
    root = tmp_path / "root"
    root.mkdir()
    rig.spec["models"]["extra_roots"] = [{"path": str(root), "read_only": True}]
    run = rig.doit()
    assert "optical_flow/" not in run.output
    assert "itself doesn't look into audio_encoders/" in run.output
    paths = yaml.safe_load(rig.layout.extra_model_paths.read_text())
    assert paths["root1"]["audio_encoders"] == "audio_encoders", "what machine.yaml names"
    assert paths["root2"]["optical_flow"] == "optical_flow"
    assert "audio_encoders" not in paths["root2"]
    assert paths["root2"]["diffusion_models"].split() == ["unet", "diffusion_models"]
    seen = rig.client().get("/internal/folder_paths")
    assert str(root / "unet") in seen["diffusion_models"]
    assert str(root / "t2i_adapter") in seen["controlnet"]
    assert rig.client().get("/models/optical_flow") == ["x.safetensors"]
    assert rig.doit().executed == set()


def test_where_folder_types_are_not_known_every_folder_is_fine(
    machine: MachineMaker, model: str, tmp_path: Path
) -> None:
    comfyui = tmp_path / "other"
    shutil.copytree(SIMULATOR, comfyui)
    module = comfyui / "folder_paths.py"
    module.write_text(
        module.read_text().replace(
            "import os\n", "import os\nif len(__import__('sys').argv) < 2:\n    raise OSError\n", 1
        )
    )
    root = tmp_path / "root"
    (root / "loras").mkdir(parents=True)
    rig = rig_of(machine, model, "anything/x.safetensors", "unet/x.safetensors", comfyui=comfyui)
    rig.spec["models"]["extra_roots"] = [{"path": str(root), "read_only": True}]
    assert "models.files" not in rig.doit().output
    assert rig.client().get("/models/anything") == ["x.safetensors"]
    assert rig.client().get("/models/diffusion_models") == ["x.safetensors"]
    assert str(root / "loras") in rig.client().get("/internal/folder_paths")["loras"]
    assert rig.doit().executed == set()


def test_an_extension_that_comfyui_does_not_list_is_a_warning(
    machine: MachineMaker, model: str, tmp_path: Path
) -> None:
    right = (
        "checkpoints/a.safetensors", "loras/of/b.CKPT", "diffusion_models/c.gguf", "vae/d.onnx",
        "configs/e.yaml", "of_a_node/f", "diffusers/g",
    )  # fmt: skip
    rig = rig_of(
        machine, model, *right, "checkpoints/xl", "checkpoints/sd-v1.5", "loras/b.safetensor"
    )
    folder = tmp_path / "folder"
    folder.mkdir()
    rig.spec["models"]["files"].append({"target": "loras/folder", "source": str(folder)})
    said = rig.doit("plan").output.splitlines()
    said = [line for line in said if "[7]" in line or line.startswith("! ")]
    why = "has no extension, and ComfyUI lists none without; did you mean"
    assert [line.partition("target: ")[2] for line in said if line.startswith("! ")] == [
        "ComfyUI itself doesn't look into of_a_node/: right if a custom node does",
        f"{why} checkpoints/xl.safetensors?",
        f"{why} checkpoints/sd-v1.5.safetensors?",
        "ComfyUI lists no file that ends in .safetensor; did you mean .safetensors?",
    ]


def test_what_needs_no_comfyui_to_be_seen_is_said_at_once(machine: MachineMaker) -> None:
    url = "http://127.0.0.1:9/x.ckpt"
    files = [
        {"target": target, "url": url}
        for target in ("checkpoint/x.ckpt", "x.ckpt", "vae", "loras/x", "of_a_node/x", "LLM/a.txt")
    ]
    rig = machine(comfyui={"repo": "http://127.0.0.1:9/ComfyUI"}, models={"files": files})
    for run in (rig.doit(code=2), rig.doit("plan", code=2)):
        said = [line for line in run.output.splitlines() if ".target: " in line]
        assert [line.partition("target: ")[2] for line in said] == [
            "ComfyUI itself doesn't look into checkpoint/; did you mean checkpoints?",
            "is in no folder, where ComfyUI looks for nothing: begin with one, as in "
            "checkpoints/x.ckpt",
            "has no extension, and ComfyUI lists none without; did you mean loras/x.ckpt?",
        ]
        assert "machine.yaml:" in said[0]
