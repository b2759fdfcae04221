"""The sizes of an instance's models."""

from __future__ import annotations

from pathlib import Path

from comfy_machine.services.jobs import model_sizes
from comfy_machine.spec.layout import Layout


def test_models_of_this_machine_have_sizes_and_others_none(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    loras = layout.models / "loras" / "sub"
    loras.mkdir(parents=True)
    loras.joinpath("x.safetensors").write_bytes(b"12345")
    asked = ["loras/sub/x.safetensors", "loras/elsewhere.safetensors", "loras/a\0b"]
    assert model_sizes.of(layout, asked) == {"loras/sub/x.safetensors": 5}
