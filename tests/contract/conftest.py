from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.client import Client
from tests.contract.features import Features, ask
from tests.contract.installation import Installation

SIMULATOR = Path(__file__).parents[2] / "examples" / "simulation" / "comfyui"
REAL_URL = os.environ.get("REAL_COMFYUI_URL")
REAL_DIRECTORY = os.environ.get("REAL_COMFYUI_DIR")
REAL_PYTHON = os.environ.get("REAL_COMFYUI_PYTHON")


SIMULATORS = {"simulator-2025": "2025", "simulator-2026": "2026"}
KINDS = [*SIMULATORS, *(["real"] if REAL_DIRECTORY and REAL_PYTHON else [])]
"""What the tests can start."""


def installation_of(kind: str, scratch: Path) -> Installation:
    """One of KINDS."""
    if kind in SIMULATORS:
        as_of = ("--as-of", SIMULATORS[kind])
        return Installation(SIMULATOR, sys.executable, 30, scratch, always=as_of)
    assert REAL_DIRECTORY
    assert REAL_PYTHON
    return Installation(Path(REAL_DIRECTORY), REAL_PYTHON, 300, scratch)


@pytest.fixture(
    scope="session",
    params=[*KINDS, *(["running"] if REAL_URL else [])],
)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Client]:
    """A server that all tests share: they take no state of it for granted."""
    if request.param == "running":
        assert REAL_URL
        yield Client(REAL_URL)
        return
    installation = installation_of(request.param, tmp_path_factory.mktemp("shared"))
    yield installation.start(installation.base())
    installation.close()


@pytest.fixture(scope="session")
def features(server: Client) -> Features:
    """What the shared server has that others lack."""
    return ask(server)


@pytest.fixture(params=KINDS)
def comfyui(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Installation]:
    """ComfyUI to start servers from, with flags and folders of a test's own."""
    installation = installation_of(request.param, tmp_path)
    yield installation
    installation.close()
