"""Who runs for a workspace: real processes, found once and then known by their pid."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from comfy_machine.host.pm2 import app_processes as census_module
from comfy_machine.host.pm2 import apps
from comfy_machine.host.pm2.app_processes import Census
from comfy_machine.host.system import files, private_folder
from tests.contract.client import until

Starter = Callable[..., "subprocess.Popen[bytes]"]
SELDOM = 1000.0
PATIENCE = 20.0


@pytest.fixture
def pids(tmp_path: Path) -> Iterator[Path]:
    """The folder in which PM2 has a file for each app that it started."""
    folder = private_folder.make(tmp_path) / "pids"
    folder.mkdir()
    yield folder
    files.remove(private_folder.folder(tmp_path))


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Starter]:
    """Starts an app of the workspace; nobody waits for its end but the test."""
    started: list[subprocess.Popen[bytes]] = []

    def start(name: str) -> subprocess.Popen[bytes]:
        marks = {apps.WORKSPACE: str(tmp_path), apps.NAME: name, apps.PORT: "8188"}
        started.append(
            subprocess.Popen(
                [sys.executable, "-Sc", "input()"], env=os.environ | marks, stdin=subprocess.PIPE
            )
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """One for each time that all processes of the machine were read; those that come do soon."""
    monkeypatch.setattr(census_module, "APPEARS", 0.1)
    found: list[None] = []
    real = psutil.pids

    def counted() -> list[int]:
        found.append(None)
        return real()

    monkeypatch.setattr(psutil, "pids", counted)
    return found


def settle(census: Census, reads: list[None]) -> None:
    """Past the moment in which one that PM2 has just started may still come."""

    def is_quiet() -> bool:
        before = len(reads)
        assert census.find("comfyui-gpu0") is None
        return len(reads) == before

    until(is_quiet, PATIENCE, "the census to settle")


def test_while_all_live_the_machine_is_read_once(
    tmp_path: Path, pids: Path, start: Starter, reads: list[None]
) -> None:
    names = [f"comfyui-gpu{gpu}" for gpu in range(3)]
    started = {name: start(name) for name in names}
    census = Census(tmp_path, SELDOM)
    until(lambda: all(census.find(name) for name in names), PATIENCE, "all of them")
    before = len(reads)
    for _ in range(100):
        for name in names:
            found = census.find(name)
            assert found is not None
            assert found.process.pid == found.app.pid == started[name].pid
            assert found.app.port == 8188
    (pids / "another-1.pid").touch()
    assert census.find(names[0])
    assert len(reads) == before, "nobody who was asked for is missing"


def test_one_that_is_not_there_costs_no_more_than_a_look_at_the_pid_files(
    tmp_path: Path, pids: Path, reads: list[None]
) -> None:
    census = Census(tmp_path, SELDOM)
    settle(census, reads)
    before = len(reads)
    for _ in range(100):
        assert census.find("comfyui-gpu0") is None
    assert len(reads) == before


def test_one_that_pm2_starts_is_seen_at_once(
    tmp_path: Path, pids: Path, start: Starter, reads: list[None]
) -> None:
    census = Census(tmp_path, SELDOM)
    settle(census, reads)
    process = start("comfyui-gpu0")
    assert census.find("comfyui-gpu0") is None, "nothing says that it came"
    (pids / f"comfyui-gpu0-{process.pid}.pid").write_text(str(process.pid))
    until(lambda: census.find("comfyui-gpu0"), PATIENCE, "it to be seen")


def test_an_orphan_that_no_pid_file_tells_of_is_seen_in_time(
    tmp_path: Path, pids: Path, start: Starter, reads: list[None]
) -> None:
    census = Census(tmp_path, every=0.3)
    settle(census, reads)
    start("comfyui-gpu0")
    until(lambda: census.find("comfyui-gpu0"), PATIENCE, "it to be seen")


def test_one_that_ended_is_gone_even_while_nobody_takes_note(
    tmp_path: Path, pids: Path, start: Starter
) -> None:
    process = start("comfyui-gpu0")
    census = Census(tmp_path, SELDOM)
    until(lambda: census.find("comfyui-gpu0"), PATIENCE, "it to be seen")
    process.kill()
    zombie = psutil.Process(process.pid)
    until(lambda: zombie.status() == psutil.STATUS_ZOMBIE, PATIENCE, "its end")
    assert census.find("comfyui-gpu0") is None
    again = start("comfyui-gpu0")
    (pids / f"comfyui-gpu0-{again.pid}.pid").write_text(str(again.pid))
    until(lambda: census.find("comfyui-gpu0"), PATIENCE, "the next one")
    found = census.find("comfyui-gpu0")
    assert found is not None
    assert found.app.pid == again.pid


def test_without_a_pm2_there_is_nobody(tmp_path: Path) -> None:
    assert Census(tmp_path / "none", SELDOM).find("comfyui-gpu0") is None
