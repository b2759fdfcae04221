"""Folders that are made once and then left alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from comfy_machine.host.storage import digest_folders
from comfy_machine.host.system import files


def damage(folder: Path, receipt: dict[str, Any]) -> str | None:
    return None if (folder / "file").is_file() else "file is missing"


def make(folder: Path) -> Path:
    folder.mkdir()
    (folder / "file").write_text("")
    digest_folders.finish(folder, {"digest": folder.name})
    return folder


def test_the_first_is_to_be_made(tmp_path: Path) -> None:
    assert digest_folders.choose(tmp_path, "d1", damage) == (tmp_path / "d1", False)


def test_a_whole_one_is_used_again(tmp_path: Path) -> None:
    folder = make(tmp_path / "d1")
    assert digest_folders.choose(tmp_path, "d1", damage) == (folder, True)
    assert digest_folders.read(folder) == {"digest": "d1"}


def test_an_unfinished_one_is_to_be_made_again(tmp_path: Path) -> None:
    (tmp_path / "d1").mkdir()
    (tmp_path / "d1" / "file").write_text("")
    assert digest_folders.choose(tmp_path, "d1", damage) == (tmp_path / "d1", False)


def test_one_that_is_in_use_and_only_lost_its_receipt_stays(tmp_path: Path) -> None:
    used = frozenset({"d1"})
    assert digest_folders.choose(tmp_path, "d1", damage, used) == (tmp_path / "d1", False), (
        "it is gone"
    )
    (tmp_path / "d1").mkdir()
    assert digest_folders.choose(tmp_path, "d1", damage, used) == (tmp_path / "d1.2", False)


def test_one_whose_receipt_is_damaged_counts_as_unfinished(tmp_path: Path) -> None:
    folder = make(tmp_path / "d1")
    digest_folders.receipt_of(folder).write_text('{"dig')
    assert digest_folders.choose(tmp_path, "d1", damage) == (folder, False)


def test_a_damaged_one_stays_and_another_is_made_beside_it(tmp_path: Path) -> None:
    first = make(tmp_path / "d1")
    (first / "file").rename(first / "moved")
    assert digest_folders.choose(tmp_path, "d1", damage) == (tmp_path / "d1.2", False)
    assert (first / "moved").is_file(), "it may be running"
    second = make(tmp_path / "d1.2")
    assert digest_folders.choose(tmp_path, "d1", damage) == (second, True)
    (second / "file").unlink()
    assert digest_folders.choose(tmp_path, "d1", damage) == (tmp_path / "d1.3", False)


def test_a_removed_one_is_never_taken_for_a_whole_one(tmp_path: Path) -> None:
    folder = make(tmp_path / "d1")
    digest_folders.remove(folder)
    assert list(tmp_path.iterdir()) == []
    digest_folders.remove(folder)


def test_folders_are_listed_oldest_first_without_links_and_receipts(tmp_path: Path) -> None:
    for age, name in enumerate(("new", "old")):
        os.utime(make(tmp_path / name), (1000 - age, 1000 - age))
    (tmp_path / "link").symlink_to("new")
    assert [path.name for path in digest_folders.list_folders(tmp_path)] == ["old", "new"]
    assert digest_folders.list_folders(tmp_path / "none") == []


def test_what_is_in_it_is_on_the_disk_before_its_receipt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "0a"
    folder.mkdir()
    was_finished = []
    sync = files.sync

    def seen(path: Path) -> None:
        was_finished.append(digest_folders.receipt_of(path).exists())
        sync(path)

    monkeypatch.setattr(files, "sync", seen)
    digest_folders.finish(folder, {"digest": "0a"})
    digest_folders.finish(folder, {"digest": "0a", "more": 1})
    assert was_finished == [False]
