"""GPUs: counted by device nodes in a folder that stands for /dev, described by NVML."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from comfy_machine.host.system import gpu
from comfy_machine.host.system.failure import Failure
from comfy_machine.host.system.gpu import Gpu, Process
from tests.cards import (
    DRIVER_NOT_LOADED,
    EXCLUSIVE_PROCESS,
    GIB,
    NO_PERMISSION,
    NOT_SUPPORTED,
    PROHIBITED,
    RESET_REQUIRED,
    UNKNOWN,
    VERSION_MISMATCH,
    Nvml,
    card,
    lost,
    uuid,
)


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


def test_every_gpu_is_shown_as_the_driver_has_it(nvml: Nvml) -> None:
    me = os.getpid()
    nvml.show(
        card(7, used=3 * GIB, compute=[(me, 2 * GIB)], graphics=[(me, 2 * GIB), (1, GIB)]),
        card(8, name="RTX 4090", total=24 * GIB, mode=EXCLUSIVE_PROCESS, mig=None),
        card(9, mode=PROHIBITED, mig=1),
    )
    first, second, third = gpu.inventory()
    assert (first.index, first.uuid, first.name) == (0, uuid(7), "NVIDIA H100 80GB HBM3")
    assert (first.total, first.used) == (80 * GIB, 3 * GIB)
    assert first.processes == (Process(1, GIB, False), Process(me, 2 * GIB, True))
    assert (first.mode, first.mig, first.trouble) == ("Default", False, None)
    assert str(second) == "GPU 1 (RTX 4090)"
    assert (second.mode, second.mig, second.processes) == ("Exclusive_Process", False, ())
    assert (third.mode, third.mig) == ("Prohibited", True)
    assert nvml.calls()[-1] == "nvmlShutdown"


def test_an_older_driver_counts_its_own_memory_as_used(nvml: Nvml) -> None:
    nvml.show(card(1, used=GIB, reserved=GIB), lacks=["nvmlDeviceGetMemoryInfo_v2"])
    assert gpu.inventory()[0].used == 2 * GIB


def test_what_a_driver_does_not_tell_is_left_open(nvml: Nvml) -> None:
    errors = {
        "nvmlDeviceGetMemoryInfo": NOT_SUPPORTED,
        "nvmlDeviceGetMemoryInfo_v2": NOT_SUPPORTED,
        "nvmlDeviceGetComputeMode": NOT_SUPPORTED,
        "nvmlDeviceGetComputeRunningProcesses_v3": NO_PERMISSION,
    }
    nvml.show(card(1, graphics=[(1, None)], errors=errors))
    [found] = gpu.inventory()
    assert found.trouble is None
    assert (found.total, found.used, found.mode) == (0, 0, "Default")
    assert found.processes == (Process(1, None, False),)


def test_a_gpu_in_trouble_is_shown_beside_the_others(nvml: Nvml) -> None:
    ill = card(3, errors={"nvmlDeviceGetMemoryInfo_v2": RESET_REQUIRED})
    nvml.show(card(1), lost(2), ill)
    sound, gone, found = gpu.inventory()
    assert sound.trouble is None
    assert gone == Gpu(1, trouble="GPU is lost")
    assert (found.uuid, found.trouble) == (uuid(3), "GPU requires restart")


def test_a_driver_without_gpus_shows_none(nvml: Nvml) -> None:
    nvml.show()
    assert gpu.inventory() == []


NOT_FOUND = "NVML says: NVML Shared Library Not Found"
RM_MISMATCH = "NVML says: RM has detected an NVML/RM version mismatch"


@pytest.mark.parametrize(
    ("nodes", "library", "init", "message"),
    [
        ("", False, 0, "no GPU here (no /dev/nvidia0): install the NVIDIA driver; a container"),
        ("", True, DRIVER_NOT_LOADED, "no GPU here (no /dev/nvidia0): install the NVIDIA driver"),
        ("nvidiactl nvidia0", False, 0,
         f"the NVIDIA driver is loaded, but libnvidia-ml.so.1 is missing ({NOT_FOUND}): give a "
         "container NVIDIA_DRIVER_CAPABILITIES=compute,utility"),
        ("nvidia0", True, DRIVER_NOT_LOADED,
         "the NVIDIA driver isn't loaded (NVML says: Driver Not Loaded): modprobe nvidia"),
        ("nvidiactl nvidia0", True, VERSION_MISMATCH,
         f"the NVIDIA driver and its library are of different versions ({RM_MISMATCH}): reboot"),
        ("", True, VERSION_MISMATCH, "the NVIDIA driver and its library are of different versions"),
        ("nvidia0", True, UNKNOWN,
         "the NVIDIA driver doesn't answer (NVML says: Unknown Error): see nvidia-smi and dmesg"),
        ("nvidia0", True, 123,
         "the NVIDIA driver doesn't answer (NVML says: NVML's own words for 123): see nvidia-smi"),
    ],
)  # fmt: skip
def test_why_the_driver_cannot_be_asked_is_said_with_what_to_do(
    nvml: Nvml, tmp_path: Path, nodes: str, library: bool, init: int, message: str
) -> None:
    devices = tmp_path / "dev"
    devices.mkdir()
    for name in nodes.split():
        (devices / name).touch()
    nvml.show(card(1), library=library, init=init)
    with pytest.raises(Failure) as caught:
        gpu.inventory(devices)
    assert str(caught.value).startswith(message)


def test_a_process_is_named_by_its_command_if_it_is_here() -> None:
    nobody = subprocess.Popen(["true"])
    nobody.wait()
    code = "'https://me:secret@host'\nimport time; print('up', flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as stranger:
        assert stranger.stdout
        stranger.stdout.readline()
        shown = str(Process(stranger.pid, 3 * GIB // 2, True))
        stranger.kill()
    assert shown.startswith(f"pid {stranger.pid} ({sys.executable} -c 'https://***@host' import")
    assert shown.endswith(", 1.5 GiB)")
    assert "secret" not in shown
    assert "\n" not in shown
    assert (
        str(Process(nobody.pid, GIB, True)) == f"pid {nobody.pid}, not visible from here, 1.0 GiB"
    )
    assert str(Process(nobody.pid, None, True)) == f"pid {nobody.pid}, not visible from here"


real = pytest.mark.skipif(gpu.count() == 0, reason="no GPU here")


@pytest.mark.gpu
@real
def test_the_inventory_of_real_gpus_is_sane() -> None:
    found = gpu.inventory()
    assert 0 < len(found) <= gpu.count()
    assert [each.index for each in found] == list(range(len(found)))
    assert len({each.uuid for each in found}) == len(found)
    for each in found:
        assert each.trouble is None
        assert re.fullmatch(r"GPU-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", each.uuid)
        assert each.name
        assert 0 <= each.used <= each.total
        assert each.mode in ("Default", "Prohibited", "Exclusive_Process")


@pytest.mark.gpu
@real
@pytest.mark.skipif(not shutil.which("nvidia-smi"), reason="no nvidia-smi here")
def test_real_gpus_are_in_the_order_of_nvidia_smi() -> None:
    asked = ["nvidia-smi", "--query-gpu=index,uuid,name", "--format=csv,noheader"]
    listed = subprocess.run(asked, check=True, capture_output=True, text=True).stdout.splitlines()
    assert [f"{each.index}, {each.uuid}, {each.name}" for each in gpu.inventory()] == listed
