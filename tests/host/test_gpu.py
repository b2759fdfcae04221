"""GPUs, counted by their device nodes in a folder that stands for /dev."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.host import gpu


@pytest.mark.parametrize(
    ("names", "number", "driver"),
    [
        ("", 0, False),
        ("null zero nvme0 nvme0n1", 0, False),
        ("nvidiactl nvidia-uvm nvidia-uvm-tools nvidia-modeset nvidia-caps", 0, True),
        ("nvidiactl nvidia0 nvidia-uvm", 1, True),
        ("nvidia0 nvidia1 nvidia10 nvidiactl", 3, True),
        ("nvidia3 nvidiactl", 1, True),
        ("nvidia0", 1, False),
    ],
)
def test_gpus_are_counted(tmp_path: Path, names: str, number: int, driver: bool) -> None:
    for name in names.split():
        (tmp_path / name).touch()
    assert gpu.count(tmp_path) == number
    assert gpu.driver_present(tmp_path) is driver


def test_without_a_device_folder_there_is_none(tmp_path: Path) -> None:
    assert gpu.count(tmp_path / "none") == 0
    assert gpu.driver_present(tmp_path / "none") is False
