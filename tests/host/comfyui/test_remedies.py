"""What to do about a custom node's exception."""

from __future__ import annotations

import importlib
import subprocess

import pytest

from comfy_machine.host.comfyui import remedies
from comfy_machine.host.comfyui.load_report import Error, Pack, Report
from comfy_machine.host.comfyui.load_result import of_report
from comfy_machine.host.system import debian
from comfy_machine.services.inside.errors import describe


@pytest.fixture(autouse=True)
def _debian(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debian, "is_debian", lambda: True)
    monkeypatch.setattr(debian, "_has_lists", lambda: False)


@pytest.mark.parametrize(
    ("library", "said"),
    [
        ("libGL.so.1", "apt install libgl1"),
        ("libcuda.so.1", "libcuda.so.1 belongs to the NVIDIA driver: a container needs --gpus all"),
        (
            "libcudart.so.12",
            "libcudart.so.12 belongs to CUDA 12: a package was built for another CUDA",
        ),
        ("libnvrtc-builtins.so.13.0", "libnvrtc-builtins.so.13.0 belongs to CUDA 13: "),
        ("libcudnn_ops_infer.so.8", "libcudnn_ops_infer.so.8 belongs to CUDA: "),
        (
            "libtorch_cuda.so",
            "libtorch_cuda.so belongs to torch: a package was built for another torch",
        ),
        (
            "libc10_cuda.so",
            "libc10_cuda.so belongs to torch: a package was built for another torch",
        ),
    ],
)
def test_a_missing_library_is_named_with_what_brings_it(library: str, said: str) -> None:
    mend = remedies.mend(Error("ImportError", "…", library=library))
    assert mend is not None
    assert mend.startswith(said)


def test_the_sentence_of_a_custom_node_ends_with_what_to_do() -> None:
    why = "libGL.so.1: cannot open shared object file: No such file or directory"
    error = Error("ImportError", why, library="libGL.so.1")
    pack = Pack("/x/custom_nodes/cv", "custom_nodes", error=error)
    (result,) = of_report(Report(attached=True, packs={"cv": pack})).values()
    assert str(result) == f"doesn't import: ImportError: {why} (apt install libgl1)"


def test_a_program_that_is_missing_is_told_from_a_file_that_is() -> None:
    with pytest.raises(FileNotFoundError) as caught:
        subprocess.run(["exiftool", "-ver"], env={"PATH": "/nowhere"}, check=True)
    told = describe(caught.value)
    error = Error(told["type"], told["message"], errno=told["errno"], file=told["file"],
                  modules=tuple(told["modules"]))  # fmt: skip
    assert remedies.mend(error) == "apt install libimage-exiftool-perl"
    assert remedies.mend(Error("FileNotFoundError", "…", errno=2, file="settings")) is None


def test_a_module_that_no_installed_package_has_is_told_from_one_of_the_nodes_own() -> None:
    told = {}
    for name in ("nowhere_to_be_found", "json.nowhere"):
        with pytest.raises(ModuleNotFoundError) as caught:
            importlib.import_module(name)
        told[name] = Error(**describe(caught.value))
    mend = remedies.mend(told["nowhere_to_be_found"])
    assert mend is not None
    assert "no installed package provides nowhere_to_be_found" in mend
    assert "python.packages" in mend
    assert remedies.mend(told["json.nowhere"]) is None


def test_of_what_no_value_tells_nothing_is_said() -> None:
    assert remedies.mend(Error("ValueError", "port 8188 is in use, libGL.so.1 is missing")) is None
