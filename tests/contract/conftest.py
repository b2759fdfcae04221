from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .client import Client
from .features import Features, ask
from .installation import Installation

SIMULATOR = Path(__file__).parents[2] / "examples" / "simulation" / "comfyui"
REAL_URL = os.environ.get("REAL_COMFYUI_URL")
REAL_DIRECTORY = os.environ.get("REAL_COMFYUI_DIR")
REAL_PYTHON = os.environ.get("REAL_COMFYUI_PYTHON")


SIMULATORS = {"simulator-2025": "2025", "simulator-2026": "2026"}


def _installation(kind: str, scratch: Path) -> Installation:
    if kind in SIMULATORS:
        as_of = ("--as-of", SIMULATORS[kind])
        return Installation(SIMULATOR, sys.executable, 30, scratch, always=as_of)
    assert REAL_DIRECTORY
    assert REAL_PYTHON
    return Installation(Path(REAL_DIRECTORY), REAL_PYTHON, 120, scratch)


_real_can_be_started = bool(REAL_DIRECTORY and REAL_PYTHON)


@pytest.fixture(
    scope="session",
    params=[*SIMULATORS, *(["real"] if REAL_URL or _real_can_be_started else [])],
)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Client]:
    """A server that all tests share: they take no state of it for granted."""
    if request.param == "real" and REAL_URL:
        yield Client(REAL_URL)
        return
    installation = _installation(request.param, tmp_path_factory.mktemp("shared"))
    yield installation.start(installation.base())
    installation.close()


@pytest.fixture(scope="session")
def features(server: Client) -> Features:
    """What the shared server has that others lack."""
    return ask(server)


@pytest.fixture(params=[*SIMULATORS, *(["real"] if _real_can_be_started else [])])
def comfyui(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Installation]:
    """ComfyUI to start servers from, with flags and folders of a test's own."""
    installation = _installation(request.param, tmp_path)
    yield installation
    installation.close()
