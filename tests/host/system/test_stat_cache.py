"""What didn't change is not read again, and what did is."""

from __future__ import annotations

import os
import time
from pathlib import Path

from comfy_machine.host.system.stat_cache import CACHED, while_unchanged

OLD = 1_000_000_000


def test_a_file_is_read_anew_when_it_changed_and_only_then(tmp_path: Path) -> None:
    read: list[Path] = []

    @while_unchanged
    def text(path: Path) -> str:
        read.append(path)
        return path.read_text() if path.exists() else "nothing"

    file = tmp_path / "file"
    assert [text(file), text(file)] == ["nothing", "nothing"]
    assert len(read) == 1
    file.write_text("one")
    os.utime(file, (OLD, OLD))
    assert [text(file), text(file)] == ["one", "one"]
    assert len(read) == 2
    file.write_text("two")
    os.utime(file, (OLD, OLD + 1))
    assert text(file) == "two"


def test_what_changed_just_now_may_change_again_within_the_same_tick(tmp_path: Path) -> None:
    file = tmp_path / "file"
    text = while_unchanged(Path.read_text)
    now = time.time()
    for word in ("one", "two"):
        file.write_text(word)
        os.utime(file, (now, now))
        assert text(file) == word


def test_what_is_named_besides_counts_too(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (OLD, OLD))
    names = while_unchanged(lambda folder: sorted(path.name for path in folder.rglob("*")))
    for name in ("a", "b"):
        os.utime(tmp_path, (OLD, OLD))
        names(tmp_path, tmp_path / "a", tmp_path / "b")
        (tmp_path / name / f"new-{name}").touch()
        assert f"new-{name}" in names(tmp_path, tmp_path / "a", tmp_path / "b")


def test_only_so_many_answers_are_kept(tmp_path: Path) -> None:
    read: list[Path] = []
    look = while_unchanged(read.append)
    for _ in range(2):
        for number in range(CACHED * 3):
            look(tmp_path / str(number))
    assert len(read) == CACHED * 6
