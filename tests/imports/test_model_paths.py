"""extra_model_paths.yaml, read as ComfyUI reads it."""

from __future__ import annotations

from pathlib import Path

import pytest

from comfy_machine.host.system.failure import Failure
from comfy_machine.imports import model_paths


def written(folder: Path, text: str) -> Path:
    file = folder / model_paths.FILE
    file.write_text(text)
    return file


def test_folders_are_below_the_base_path_a_line_each(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        "a111:\n  base_path: webui/\n  is_default: true\n  checkpoints: models/Stable-diffusion\n"
        "  loras: |\n    models/Lora\n    models/LyCORIS\n  mine: /abs\nempty:\n",
    )
    (section,) = model_paths.read(file)
    webui = tmp_path / "webui"
    assert (section.name, section.base, section.is_default) == ("a111", webui, True)
    assert section.folders == {
        "checkpoints": (webui / "models/Stable-diffusion",),
        "loras": (webui / "models/Lora", webui / "models/LyCORIS"),
        "mine": (Path("/abs"),),
    }


def test_without_a_base_path_folders_are_beside_the_file(tmp_path: Path) -> None:
    (section,) = model_paths.read(written(tmp_path, "nas: {vae: ../vae}\n"))
    assert (section.base, section.folders) == (None, {"vae": (tmp_path.parent / "vae",)})


def test_variables_and_the_home_folder_are_expanded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELS", "/mnt")
    monkeypatch.setenv("HOME", "/home/ada")
    text = "one: {base_path: $MODELS/a}\ntwo: {base_path: ~/b}\n"
    found = [section.base for section in model_paths.read(written(tmp_path, text))]
    assert found == [Path("/mnt/a"), Path("/home/ada/b")]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("a: [", "isn't YAML"),
        ("- a", "has no sections"),
        ("a: b", "a isn't a section"),
        ("a: {vae: [x]}", "a.vae isn't a folder"),
    ],
)
def test_a_file_of_another_kind_is_named(tmp_path: Path, text: str, what: str) -> None:
    with pytest.raises(Failure, match=rf"{model_paths.FILE}.* {what.split(' ', 1)[1]}"):
        model_paths.read(written(tmp_path, text))
