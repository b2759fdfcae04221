"""What only the simulator does."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import SIMULATOR
from .installation import Installation, Server


@pytest.fixture
def simulator(tmp_path: Path) -> Iterator[Installation]:
    installation = Installation(SIMULATOR, sys.executable, 30, tmp_path)
    yield installation
    installation.close()


def with_gpus(simulator: Installation, count: int, *flags: str, **env: str) -> Server:
    base = simulator.base()
    env = {"SIMULATE_GPU": str(count), **env}
    return simulator.launch(base, *flags, cpu=False, env=env)


def test_a_pretended_gpu_is_a_cuda_device(simulator: Installation) -> None:
    server = simulator.wait(with_gpus(simulator, 1))
    (device,) = server.json("/system_stats")["devices"]
    assert (device["type"], device["index"]) == ("cuda", 0)
    assert device["vram_total"] >= device["vram_free"] > 0


@pytest.mark.parametrize(
    ("flags", "visible"), [(("--cuda-device", "2"), "0"), ((), "2"), ((), ""), ((), "-1")]
)
def test_a_gpu_that_is_not_there_or_hidden_fails_the_start(
    simulator: Installation, flags: tuple[str, ...], visible: str
) -> None:
    ended = with_gpus(simulator, 2, "--quick-test-for-ci", *flags, CUDA_VISIBLE_DEVICES=visible)
    assert ended.process.wait(30) == 1
    assert "No CUDA GPUs are available" in ended.log


def test_the_flag_chooses_the_gpu_whatever_is_visible(simulator: Installation) -> None:
    flags = ("--quick-test-for-ci", "--cuda-device", "1")
    ended = with_gpus(simulator, 2, *flags, CUDA_VISIBLE_DEVICES="7")
    assert ended.process.wait(30) == 0, ended.log


def test_a_copy_of_the_folder_is_complete(simulator: Installation, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(SIMULATOR, copy, ignore=shutil.ignore_patterns("__pycache__"))
    simulator.directory = copy
    ended = simulator.load(simulator.base())
    assert ended.process.returncode == 0, ended.log
    assert str(SIMULATOR) not in ended.log
    for name in ("custom_nodes/websocket_image_save.py", "models/checkpoints/put_checkpoints_here"):
        assert (copy / name).is_file(), "ignored as in ComfyUI, and yet tracked"
