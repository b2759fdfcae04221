"""Several files together."""

from __future__ import annotations

from comfy_machine.imports.entries import ModelFile, Node
from comfy_machine.imports.wanted import Wanted, together

PACK = "https://github.com/a/Pack"


def test_what_two_files_ask_for_is_written_once_and_a_difference_is_named() -> None:
    one = Wanted(
        comfyui=("", "v1"),
        nodes=[Node(url=PACK, ref="1" * 40, notes=["for one"])],
        models=[ModelFile("vae/v.pt", url="https://e.com/v", notes=["for one"])],
        preferences={"numpy": "1"},
    )
    two = Wanted(
        comfyui=("", "v2"),
        nodes=[Node(url=f"{PACK}.git", ref="2" * 40, notes=["for two"]), Node(id="x")],
        models=[ModelFile("vae/v.pt", url="https://e.com/v", notes=["for two"])],
        preferences={"numpy": "2", "scipy": "1"},
    )
    found = together({"one": one, "two": two})
    assert found.comfyui == ("", "v1")
    assert found.nodes == [
        Node(url=PACK, ref="1" * 40, notes=["for one", "for two"]), Node(id="x"),
    ]  # fmt: skip
    assert [model.notes for model in found.models] == [["for one", "for two"]]
    assert found.preferences == {"numpy": "1", "scipy": "1"}
    assert found.left_out == [
        f"two: asks for a/pack at {'2' * 40}, and {'1' * 40} is written",
        "two: asks for ComfyUI at v2, and v1 is written",
    ]
