"""Fixtures: repositories, machines, and the PM2 that all of them share."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from comfy_machine.host.storage import digest_folders
from comfy_machine.host.system import files, locks, private_folder
from comfy_machine.spec.layout import Layout
from tests import starter
from tests.cards import Nvml
from tests.forge import Forge
from tests.rig import SIMULATOR, Rig, free_ports

MachineMaker = Callable[..., Rig]


@pytest.fixture(autouse=True, scope="session")
def _no_settings_from_outside() -> Iterator[None]:
    """Neither the caller's machine nor the caller's git settings reach a test."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MACHINE", "NUM_GPUS", "WORKSPACE_PATH", "ENABLE_COMFYUI"):
            patch.delenv(name, raising=False)
        # Every doit that a test runs would compile all its modules anew.
        patch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
        for name in [name for name in os.environ if name.startswith("COMFYUI_")]:
            patch.delenv(name)
        patch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
        patch.setenv("GIT_CONFIG_SYSTEM", os.devnull)
        with starter.forking():
            yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Machines first, which take longest: short tests then fill the end of a parallel run."""
    items.sort(key=lambda item: "machine" not in getattr(item, "fixturenames", ()))


@pytest.fixture
def forge(tmp_path: Path) -> Forge:
    return Forge(tmp_path / "forge")


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all test processes of this session."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def built(shared_folder: Path) -> Iterator[Layout]:
    """A simulator's PM2 and Python environment, made and tried once by the stages themselves."""
    rig = Rig(
        shared_folder / "built",
        {
            "workspace": "ws",
            "comfyui": {"path": str(SIMULATOR)},
            "python": {"torch": "none"},
            "instances": {"cpu_only": True},
        },
        env={"XDG_CACHE_HOME": str(shared_folder / "cache"), "UV_CACHE_DIR": uv_cache()},
    )
    with locks.exclusive(shared_folder / "built.lock"):
        rig.folder.mkdir(exist_ok=True)
        rig.doit("build")
    yield rig.layout
    shutil.rmtree(private_folder.folder(rig.workspace), ignore_errors=True)


@pytest.fixture
def supervisor(built: Layout) -> Path:
    """A supervisor folder with PM2 in it."""
    return built.supervisor


@pytest.fixture
def environments(request: pytest.FixtureRequest, built: Layout) -> Path | None:
    """Those that a test's machine finds already made, unless it is marked as `afresh`."""
    return None if request.node.get_closest_marker("afresh") else built.environments


@pytest.fixture
def nvml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Nvml]:
    """A driver that is only said to be there: for this process, and by `env` for a rig's doit."""
    found = Nvml(tmp_path / "nvml.json")
    for name, value in found.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.syspath_prepend(found.env["PYTHONPATH"])
    real = sys.modules.pop("pynvml", None)
    yield found
    sys.modules.pop("pynvml", None)
    if real:
        sys.modules["pynvml"] = real


@pytest.fixture
def machine(tmp_path: Path, supervisor: Path, environments: Path | None) -> Iterator[MachineMaker]:
    """Makes a machine of the simulator, one CPU instance unless told otherwise; ends it after."""
    rigs: list[Rig] = []

    def make(name: str = "machine", **spec: Any) -> Rig:
        folder = tmp_path / name
        folder.mkdir()
        layout = Layout(folder / "ws")
        link_supervisor(supervisor, layout)
        if environments:
            copy_environments(environments, layout.environments)
        instances = {"gpus": 1, "cpu_only": True, "port_start": free_ports(4)}
        rig = Rig(
            folder,
            {
                "workspace": "ws",
                "comfyui": {"path": str(SIMULATOR)},
                "python": {"torch": "none"},
                **spec,
                "instances": instances | spec.get("instances", {}),
                # Its tests start it, on a port of their own.
                "health": {"server": False} | spec.get("health", {}),
            },
            env={"XDG_CACHE_HOME": str(tmp_path / "cache"), "UV_CACHE_DIR": uv_cache()},
        )
        rigs.append(rig)
        return rig

    yield make
    for rig in rigs:
        rig.close()


def link_supervisor(there: Path, layout: Layout) -> None:
    """PM2 as installed elsewhere, which nobody writes into: its 3,300 files are not copied."""
    for folder in there.iterdir():
        files.point(layout.supervisor / folder.name, folder)


def copy_environments(there: Path, here: Path) -> None:
    """Hard links, which take a tenth of the time: no test of these writes into a package in place.
    Receipts are copied."""
    here.mkdir(parents=True, exist_ok=True)
    for folder in digest_folders.list_folders(there):
        subprocess.run(["cp", "-al", folder, here / folder.name], check=True)
        digest_folders.finish(here / folder.name, digest_folders.read(folder))


def uv_cache() -> str:
    """The caller's uv cache, which a test's own XDG_CACHE_HOME would hide."""
    known = os.environ.get("UV_CACHE_DIR")
    return known or str(Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "uv")
