"""The private folder of a workspace."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from comfy_machine.host.system import private_folder
from comfy_machine.host.system.failure import Failure


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    path = private_folder.folder(tmp_path)
    yield path
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def test_it_is_for_its_owner_alone_whatever_the_umask(tmp_path: Path, folder: Path) -> None:
    before = os.umask(0)
    try:
        assert private_folder.make(tmp_path) == folder
    finally:
        os.umask(before)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert folder.parent.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o755)
    private_folder.make(tmp_path)
    assert folder.stat().st_mode & 0o777 == 0o700


def test_asking_for_it_makes_nothing(tmp_path: Path, folder: Path) -> None:
    assert private_folder.folder(tmp_path) == folder
    assert not folder.exists()


def test_where_it_cannot_be_made_is_said(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(private_folder, "folder", lambda _: Path("/proc/none/here"))
    with pytest.raises(Failure, match=r"/proc/none can't be created \(No such .*--tmpfs /tmp"):
        private_folder.make(tmp_path)


def test_every_shell_finds_the_same_and_every_workspace_its_own(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "link").symlink_to(tmp_path)
    assert private_folder.folder(tmp_path) == private_folder.folder(tmp_path / "link") == folder
    assert private_folder.folder(tmp_path / "other") != folder
    # a socket's path ends at 107 bytes
    assert len(str(private_folder.folder(tmp_path / ("x" * 200)) / "interactor.sock")) < 90


def test_a_file_in_the_way_is_refused(tmp_path: Path, folder: Path) -> None:
    private_folder.make(tmp_path / "other")
    folder.write_text("")
    with pytest.raises(Failure, match=f"^{folder} belongs to another user: remove it$"):
        private_folder.make(tmp_path)
    shutil.rmtree(private_folder.folder(tmp_path / "other"))


def test_a_link_in_the_way_is_refused_even_to_a_folder_of_ours(
    tmp_path: Path, folder: Path
) -> None:
    private_folder.make(tmp_path / "other")
    shutil.rmtree(private_folder.folder(tmp_path / "other"))
    (tmp_path / "trap").mkdir(mode=0o700)
    folder.symlink_to(tmp_path / "trap")
    with pytest.raises(Failure, match="remove it"):
        private_folder.make(tmp_path)


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives folders away")
def test_somebody_elses_folder_is_refused(tmp_path: Path, folder: Path) -> None:
    private_folder.make(tmp_path)
    os.chown(folder, 65534, -1)
    with pytest.raises(Failure, match=f"{folder} belongs to another user"):
        private_folder.make(tmp_path)


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives folders away")
def test_where_another_user_took_the_name_the_home_directory_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(private_folder, "TMP", tmp_path)
    home = Path(pwd.getpwuid(os.getuid()).pw_dir) / ".comfy-machine"
    taken = tmp_path / f"comfy-machine-{os.getuid()}"
    before = private_folder.make(tmp_path / "older")
    assert before.parent == taken
    os.chown(taken, 65534, -1)
    try:
        assert private_folder.make(tmp_path).parent == home
        found = private_folder.folder(tmp_path)
        os.chown(taken, os.getuid(), -1)
        assert private_folder.folder(tmp_path) == found, "PM2 may run there"
        assert private_folder.folder(tmp_path / "older") == before
    finally:
        shutil.rmtree(found)
        with contextlib.suppress(OSError):
            home.rmdir()
