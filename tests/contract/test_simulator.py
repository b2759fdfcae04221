"""What only the simulator does."""

from __future__ import annotations

import shutil
import signal
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.contract.conftest import SIMULATOR
from tests.contract.features import ask
from tests.contract.installation import Installation, Server


@pytest.fixture
def simulator(tmp_path: Path) -> Iterator[Installation]:
    installation = Installation(SIMULATOR, sys.executable, 30, tmp_path)
    yield installation
    installation.close()


def as_of(simulator: Installation, time: str, *flags: str) -> Server:
    """A running simulator of that time."""
    return simulator.start(simulator.base(), "--as-of", time, *flags)


def test_only_the_simulator_says_when_it_is(simulator: Installation) -> None:
    assert "--as-of" in simulator.known
    assert as_of(simulator, "2025").json("/system_stats")["system"]["comfyui_version"] == "0.3.64"
    ended = simulator.load(simulator.base("other"), "--as-of", "1999")
    assert ended.process.returncode == 2


def test_today_is_2026(simulator: Installation) -> None:
    server = simulator.start(simulator.base())
    assert server.json("/system_stats")["system"]["comfyui_version"] == "0.33.0"


@pytest.mark.parametrize(("time", "newer"), [("2025", False), ("2026", True), ("later", True)])
def test_each_time_has_its_features(simulator: Installation, time: str, newer: bool) -> None:
    found = ask(as_of(simulator, time))
    assert set(asdict(found).values()) == {newer}, found


@pytest.mark.parametrize(
    ("time", "has", "lacks"),
    [
        ("2025", ["--normalvram"], ["--cache-ram", "--enable-assets"]),
        ("2026", ["--cache-ram", "--enable-assets"], ["--normalvram", "--disable-assets"]),
        ("later", ["--cache-ram", "--disable-assets"], ["--normalvram"]),
    ],
)
def test_each_time_has_its_flags(
    simulator: Installation, time: str, has: list[str], lacks: list[str]
) -> None:
    simulator.always = ("--as-of", time)
    assert simulator.known >= set(has)
    assert not simulator.known & set(lacks)


def test_later_assets_are_on_unless_they_are_off(simulator: Installation) -> None:
    server = as_of(simulator, "later")
    assert server.json("/features")["assets"] is True
    assert server.json("/api/assets")["simulated_scans"] == 1
    server.json("/object_info/SaveImage")
    assert server.json("/api/assets")["simulated_scans"] == 1
    server.json("/object_info")
    assert server.json("/api/assets")["simulated_scans"] == 2
    off = simulator.start(simulator.base("off"), "--as-of", "later", "--disable-assets")
    off.json("/object_info")
    assert off.get("/api/assets").status_code == 503
    assert "Seeder start" not in off.log
    assert not (off.base.path / "comfyui.db.lock").exists()


def test_later_a_database_in_use_or_of_a_newer_comfyui_ends_the_start(
    simulator: Installation,
) -> None:
    as_of(simulator, "later")
    base = simulator.servers[0].base
    ended = simulator.load(base, "--as-of", "later")
    assert ended.process.returncode == 1
    assert "ASSETS_STARTUP_FAILED: in_use" in ended.log

    other = simulator.base("other")
    assert simulator.load(other, "--as-of", "later").process.returncode == 0
    ended = simulator.load(other, "--as-of", "2026")
    assert ended.process.returncode == 0, "an older one logs it"
    assert "Failed to initialize database. Can't locate revision 3" in ended.log


def test_an_older_database_is_kept_beside_the_newer(simulator: Installation) -> None:
    base = simulator.base()
    for time in ("2025", "2026"):
        assert simulator.load(base, "--as-of", time).process.returncode == 0
    assert (base.path / "comfyui.db.bkp").is_file()


def test_a_log_goes_to_a_file_too(simulator: Installation, tmp_path: Path) -> None:
    flags = ("--verbose", "WARNING", "--verbose", "INFO", str(tmp_path / "log"))
    ended = simulator.load(simulator.base(), *flags)
    assert ended.process.returncode == 0
    assert "ComfyUI version" not in ended.log
    assert "[INFO] ComfyUI version: 0.33.0" in (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    ("time", "line"),
    [("2025", "\nStopped server\n"), ("2026", "\x1b[32m[INFO]\x1b[0m \nStopped server\n")],
)
def test_a_record_that_begins_with_a_new_line_has_its_tag_alone(
    simulator: Installation, time: str, line: str
) -> None:
    server = as_of(simulator, time)
    assert server.stop(signal.SIGINT) == 0
    assert line in server.log


def test_extras_that_fail_are_told_and_stop_nothing(
    simulator: Installation, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(SIMULATOR, copy, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "comfy_extras" / "nodes_string.py").write_text("import no_such_module")
    simulator.directory = copy
    ended = simulator.load(simulator.base())
    assert ended.process.returncode == 0
    assert "IMPORT FAILED: nodes_string.py\n" in ended.log


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
    ("flags", "visible"),
    [
        (("--cuda-device", "2"), "0"),
        (("--cuda-device", "2,0"), "0"),
        ((), "2"),
        ((), ""),
        ((), "-1"),
    ],
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
