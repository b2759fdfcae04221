"""The files of assets, on a real disk."""

from __future__ import annotations

from pathlib import Path

import pytest
from blake3 import blake3

from comfy_machine.services.gateway.asset_files import Asset, AssetFiles


@pytest.fixture
def files(tmp_path: Path) -> AssetFiles:
    it = AssetFiles(tmp_path)
    it.parts.mkdir()
    return it


def uploaded(files: AssetFiles, content: bytes) -> Asset:
    part = files.parts / "one.part"
    part.write_bytes(content)
    return files.place(part, blake3(content).hexdigest(), "cat.png")[0]


def test_a_name_means_what_was_uploaded_last_by_it(files: AssetFiles, tmp_path: Path) -> None:
    first, second = uploaded(files, b"first"), uploaded(files, b"second")
    for asset in (first, second, second):
        files.call(asset, "input/cat.png")
    assert (tmp_path / "cat.png").read_bytes() == b"second"
    assert files.get(first.id) == first
    assert [*files.parts.iterdir()] == []


def test_a_file_that_is_no_asset_keeps_its_name(files: AssetFiles, tmp_path: Path) -> None:
    (tmp_path / "cat.png").write_bytes(b"a person's")
    files.call(uploaded(files, b"first"), "cat.png")
    assert (tmp_path / "cat.png").read_bytes() == b"a person's"


def test_an_asset_is_deleted_by_all_its_names(files: AssetFiles, tmp_path: Path) -> None:
    asset, other = uploaded(files, b"first"), uploaded(files, b"second")
    files.call(asset, "cat.png")
    files.call(other, "dog.png")
    assert files.delete(asset.id)
    assert not (tmp_path / "cat.png").exists()
    assert (tmp_path / "dog.png").read_bytes() == b"second"
    assert not files.delete(asset.id)
