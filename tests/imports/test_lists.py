"""The repositories that import looks things up in."""

from __future__ import annotations

from pathlib import Path

import pytest

from comfy_machine.host.system.failure import Failure
from comfy_machine.imports import lists
from tests.forge import Forge


def test_a_pin_is_kept_to_and_without_a_network_the_newest_that_was_seen_serves(
    forge: Forge, tmp_path: Path
) -> None:
    repository = forge.repository("lists.git")
    url = repository.url
    repository.commit({"list": "old"})
    said: list[str] = []
    old = lists.fetch(url, None, tmp_path / "1", said.append).pin
    repository.commit({"list": "new"})
    new = lists.fetch(url, None, tmp_path / "2", said.append).pin
    assert lists.fetch(url, None, tmp_path / "3", said.append, old).pin == old
    assert (tmp_path / "3" / "list").read_text() == "old"
    repository.folder.rename(tmp_path / "gone")
    found = lists.fetch(url, None, tmp_path / "4", said.append)
    assert (found.pin, bool(found.unreachable)) == (new, True)
    assert lists.fetch(url, None, tmp_path / "5", said.append, old).pin == old
    with pytest.raises(Failure, match="isn't there"):
        lists.fetch(f"{url}2", None, tmp_path / "6", said.append)
