"""A plan writes nothing real, whatever a step forgets."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from comfy_machine.engine import write_guard
from comfy_machine.engine.run import Run
from comfy_machine.engine.write_guard import RealWrite, only_overlay
from comfy_machine.host.repositories import git_cache
from comfy_machine.host.system import files
from comfy_machine.spec import load


@pytest.fixture
def real(tmp_path: Path) -> Path:
    """A workspace that has something."""
    (tmp_path / "ws" / "folder").mkdir(parents=True)
    (tmp_path / "ws" / "file").write_text("old")
    return tmp_path / "ws"


@pytest.fixture
def run(tmp_path: Path, real: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("XDG_CACHE_HOME", str(real / "cache"))
    (tmp_path / "overlay").mkdir()
    (tmp_path / "models").mkdir()
    (tmp_path / "machine.lock").write_text("{}")
    (tmp_path / "machine.yaml").write_text(
        f"workspace: ws\ncomfyui: {{}}\nmodels: {{folder: {tmp_path}/models}}\n"
    )
    machine = load(tmp_path / "machine.yaml", {"HOME": str(tmp_path)})
    return Run(machine, overlay=tmp_path / "overlay")


@pytest.fixture
def guarded(run: Run) -> Iterator[list[str]]:
    with only_overlay(run) as refused:
        yield refused


WRITES: dict[str, Callable[[Path], object]] = {
    "open": lambda ws: (ws / "new").open("w"),
    "append": lambda ws: (ws / "file").open("a"),
    "os.open": lambda ws: os.open(ws / "new", os.O_WRONLY | os.O_CREAT),
    "write_text": lambda ws: files.write_text(ws / "deep" / "new", "x"),
    "point": lambda ws: files.point(ws / "link", "file"),
    "copy_file": lambda ws: files.copy_file(ws / "file", ws / "copy"),
    "remove": lambda ws: files.remove(ws / "folder"),
    "rmtree": lambda ws: shutil.rmtree(ws / "folder"),
    "mkdir": lambda ws: (ws / "new").mkdir(),
    "rmdir": lambda ws: (ws / "folder").rmdir(),
    "unlink": lambda ws: (ws / "file").unlink(),
    "rename away": lambda ws: (ws / "file").rename(ws.parent / "overlay" / "file"),
    "rename to": lambda ws: (ws.parent / "machine.lock").rename(ws / "new"),
    "hard link": lambda ws: (ws / "new").hardlink_to(ws / "file"),
    "chmod": lambda ws: (ws / "file").chmod(0o600),
    "utime": lambda ws: os.utime(ws / "file"),
    "truncate": lambda ws: os.truncate(ws / "file", 0),
    "models": lambda ws: (ws.parent / "models" / "new").touch(),
    "lock": lambda ws: (ws.parent / "machine.lock").write_text("new"),
    "through a link": lambda ws: (ws.parent / "overlay" / "link" / "new").touch(),
    "relative": lambda ws: Path(os.path.relpath(ws / "new")).touch(),
    "below a descriptor": lambda ws: os.mkdir("new", dir_fd=os.open(ws, os.O_RDONLY)),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_a_forgotten_overlay_is_refused_and_remembered(
    run: Run, real: Path, write: Callable[[Path], object]
) -> None:
    (real.parent / "overlay" / "link").symlink_to(real)
    before = tree(real.parent)
    with only_overlay(run) as refused:
        with pytest.raises(RealWrite):
            write(real)
        assert len(refused) >= 1
    assert tree(real.parent) == before


def tree(folder: Path) -> dict[str, tuple[int, int, int]]:
    found = {}
    for path in folder.rglob("*"):
        status = path.lstat()
        found[str(path)] = (status.st_mode, status.st_size, status.st_mtime_ns)
    return found


def test_what_is_swallowed_is_remembered_all_the_same(guarded: list[str], real: Path) -> None:
    with contextlib.suppress(Exception):
        (real / "new").touch()
    assert guarded == [str(real / "new")]
    assert not (real / "new").exists()


def test_the_overlay_the_cache_and_temporary_files_can_be_written(
    guarded: list[str], run: Run, real: Path
) -> None:
    assert run.overlay
    files.write_text(run.layout.write_path(real / "receipts" / "a.json"), "{}")
    assert git_cache.folder().is_relative_to(real)
    files.write_text(git_cache.folder() / "new", "x")
    with tempfile.NamedTemporaryFile() as file:
        assert Path(file.name).is_relative_to(run.overlay)
    assert os.environ["TMPDIR"] == str(run.overlay), "for children"
    assert (real / "file").read_text() == "old"
    assert guarded == []


def test_an_update_may_write_the_lock_and_nothing_else(run: Run, real: Path) -> None:
    with only_overlay(run, lock=True):
        files.write_text(run.machine.lock_file, "new")
        with pytest.raises(RealWrite):
            (real / "new").touch()
    assert run.machine.lock_file.read_text() == "new"


def test_after_the_plan_all_is_as_before(run: Run, real: Path) -> None:
    temporary = tempfile.gettempdir(), os.environ.get("TMPDIR")
    with only_overlay(run):
        pass
    assert (tempfile.gettempdir(), os.environ.get("TMPDIR")) == temporary
    (real / "new").touch()
    assert write_guard._Guard.protects is None
