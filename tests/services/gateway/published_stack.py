"""For the proxy's published tests: the gateway takes the place of proxy and ComfyUI.

A plugin of pytest, which is given in place of their conftest.py; their client is used as it is.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.services.gateway.conftest import Gateway
from tests.services.gateway.double_of_workers import Workers
from tests.services.jobs.conftest import Server

NAME = "their_conftest"
PICTURE = "\x89PNG\r\n\x1a\n and the rest"


class Their(Workers):
    """Does what their workflows say."""

    def meant(self, node: dict[str, Any]) -> list[dict[str, Any]]:
        inputs = node.get("inputs", {})
        if inputs.get("hang"):
            return [{"class_type": "Say", "inputs": {"pause": 0.5}}, {"class_type": "Hold"}]
        if node["class_type"] != "SaveImage":
            return []
        return [
            {"class_type": "Say"},
            {
                "class_type": "Wait",
                "inputs": {"seconds": inputs.get("complete_after_seconds", 0.2)},
            },
            {"class_type": "Save", "inputs": {"content": PICTURE, "name": "out.png"}},
        ]


@contextmanager
def made(theirs: Path, folder: Path, token: str = "") -> Iterator[Any]:
    server = Server(folder)
    gateway = Gateway(folder, server.url, token)
    workers = Their(server.url, gateway.workspace)
    try:
        yield client(theirs).Stack(gateway.url, gateway.port, gateway.port)
    finally:
        workers.end()
        gateway.end()
        server.kill()


def client(theirs: Path) -> Any:
    """The conftest.py beside these tests."""
    if NAME not in sys.modules:
        about = importlib.util.spec_from_file_location(NAME, theirs.parent / "conftest.py")
        assert about
        assert about.loader
        sys.modules[NAME] = importlib.util.module_from_spec(about)
        about.loader.exec_module(sys.modules[NAME])
    return sys.modules[NAME]


@pytest.fixture
def stack(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    with made(request.path, tmp_path) as it:
        yield it


@pytest.fixture
def stack_with_token(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    with made(request.path, tmp_path, "secret") as it:
        yield it
