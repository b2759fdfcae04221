"""What several of these tests stand on."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from comfy_machine.host.system import private_folder
from tests.contract.installation import WAITING_NODE, Installation, Server
from tests.rig import SIMULATOR


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A simulator with a node that waits for a file."""
    there = Installation(SIMULATOR, sys.executable, 60, tmp_path_factory.mktemp("simulator"))
    base = there.base()
    base.add_node("waiting", WAITING_NODE)
    try:
        yield there.start(base)
    finally:
        there.close()


@pytest.fixture
def private_folders(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of stores without locks go away with the test's."""
    folder = tmp_path_factory.mktemp("private")
    monkeypatch.setattr(private_folder, "folder", lambda _: folder / "uid" / "store")
