"""ComfyUI's arguments as fields of machine.yaml."""

from __future__ import annotations

from comfy_machine.adoption import start_arguments


def read(text: str) -> start_arguments.Arguments:
    return start_arguments.read(text.split())


def test_arguments_that_are_fields_become_fields() -> None:
    found = read("--port 8200 --cpu --cuda-device 0,2 --listen 10.0.0.1,:: --user-directory u")
    assert (found.port, found.cpu, found.gpus) == (8200, True, [0, 2])
    assert found.listen == "10.0.0.1,::"
    assert found.folders == {"--user-directory": "u"}
    assert (found.args, found.left_out) == ([], {})


def test_listening_without_an_address_is_listening_on_all() -> None:
    assert read("--listen --fast").listen == "0.0.0.0"


def test_other_arguments_stay_as_they_are() -> None:
    found = read("--fast fp16 --reserve-vram -1 --preview-method=auto")
    assert found.args == ["--fast", "fp16", "--reserve-vram", "-1", "--preview-method", "auto"]


def test_several_files_of_model_paths_are_all_named() -> None:
    assert read("--extra-model-paths-config a.yaml b.yaml").model_paths == ["a.yaml", "b.yaml"]


def test_what_a_machine_sets_or_refuses_is_left_out_with_the_reason() -> None:
    found = read("--output-directory /o --auto-launch --enable-manager --port x")
    assert found.args == []
    assert set(found.left_out) == {
        "--output-directory /o", "--auto-launch", "--enable-manager", "--port x",
    }  # fmt: skip
    assert "shared/outputs" in found.left_out["--output-directory /o"]
