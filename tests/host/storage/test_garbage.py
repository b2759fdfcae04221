"""What is discarded is out of the way at once, and deleted by a process that ends by itself."""

from __future__ import annotations

import errno
import fcntl
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from comfy_machine.host.storage import digest_folders, disk, garbage
from comfy_machine.host.system import locks
from comfy_machine.spec.layout import Layout
from tests.contract.client import until


@pytest.fixture
def layout(tmp_path: Path) -> Iterator[Layout]:
    layout = Layout(tmp_path / "ws")
    for folder in (layout.state, layout.generations, layout.environments, layout.receipts):
        folder.mkdir(parents=True)
    yield layout
    garbage.stop(layout)


def generation(layout: Layout, name: str) -> Path:
    folder = layout.generations / name
    (folder / "ComfyUI").mkdir(parents=True)
    (folder / "ComfyUI" / "main.py").write_text("x" * 9000)
    digest_folders.finish(folder, {"digest": name})
    folder.with_name(f"{name}.files.json").write_text("{}")
    return folder


def wait(layout: Layout) -> None:
    until(lambda: not garbage.at_work(layout), 20, "the process to end by itself")


def test_what_is_discarded_is_gone_at_once_and_deleted_later(layout: Layout) -> None:
    folder, stays = generation(layout, "old"), generation(layout, "new")
    garbage.discard(layout, folder)
    assert {path.name for path in layout.generations.iterdir()} == {
        stays.name, "new.json", "new.files.json",
    }  # fmt: skip
    assert len(garbage.left(layout)) == 1, "nobody deletes it yet"
    garbage.start(layout)
    wait(layout)
    assert garbage.entries(layout) == garbage.left(layout) == []
    assert set(disk.last_measured(layout).generations) == {"new"}


def test_while_one_is_at_work_no_other_begins_and_nothing_counts_as_left(layout: Layout) -> None:
    garbage.discard(layout, generation(layout, "old"))
    with locks.exclusive(layout.state / "garbage.lock"):
        garbage.start(layout)
        assert garbage.left(layout) == []
        assert len(garbage.entries(layout)) == 1
    assert len(garbage.left(layout)) == 1, "whoever was at work was killed"
    garbage.start(layout)
    wait(layout)
    assert garbage.entries(layout) == []


def test_it_is_ended_with_the_machine_and_what_it_leaves_is_gone_on_with(layout: Layout) -> None:
    garbage.discard(layout, generation(layout, "old"))
    garbage.start(layout)
    garbage.stop(layout)
    assert not garbage.at_work(layout)
    garbage.start(layout)
    wait(layout)
    assert garbage.entries(layout) == []


def test_the_workspace_may_be_removed_while_it_works(layout: Layout) -> None:
    for name in "abcdefgh":
        garbage.discard(layout, generation(layout, name))
    garbage.start(layout)
    with (layout.state / "garbage.lock").open() as lock:
        subprocess.run(["rm", "-rf", layout.workspace], check=True)
        fcntl.flock(lock, fcntl.LOCK_EX)
    assert not layout.workspace.exists()


def test_what_cannot_be_deleted_is_named_and_not_tried_by_every_run(layout: Layout) -> None:
    garbage.discard(layout, generation(layout, "old"))
    inside = garbage.entries(layout)[0] / "ComfyUI"
    mounted = ["mount", "-t", "tmpfs", "none", str(inside)]
    if subprocess.run(mounted, capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    try:
        garbage.start(layout)
        wait(layout)
        (reason,) = disk.last_measured(layout).stuck.values()
        assert "busy" in reason
        assert garbage.left(layout) == []
    finally:
        subprocess.run(["umount", inside], check=True)
    garbage.start(layout)
    wait(layout)
    assert garbage.entries(layout) == []


def test_what_cannot_be_moved_is_deleted_in_place(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As folders of an image's layer can't be."""

    def rename(self: Path, target: Path) -> Path:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(Path, "rename", rename)
    folder = generation(layout, "old")
    garbage.discard(layout, folder)
    assert not folder.exists()
    assert garbage.entries(layout) == []


def test_files_with_many_links_are_counted_once_and_free_nothing_while_another_has_them(
    layout: Layout,
) -> None:
    one, two = layout.environments / "one", layout.environments / "two"
    one.mkdir()
    (one / "native.so").write_bytes(b"x" * 1_000_000)
    (one / "own.py").write_bytes(b"x" * 100_000)
    shutil.copytree(one, two, copy_function=lambda a, b: Path(b).hardlink_to(a))
    (two / "own.py").unlink()
    (two / "own.py").write_bytes(b"x" * 200_000)
    disk.measure(layout, {})
    found = disk.last_measured(layout)
    assert found.at
    assert 100_000 <= found.environments["one"] < 150_000
    assert 200_000 <= found.environments["two"] < 250_000
    assert 1_300_000 <= found.all < 1_400_000

    for name in ("a", "b", "c"):
        folder = generation(layout, name)
        (folder / "environment").symlink_to("../../environments/" + {"a": "one"}.get(name, "two"))
    disk.measure(layout, {})
    found = disk.last_measured(layout)
    assert found.freed_by(layout, "a") > found.environments["one"]
    assert found.freed_by(layout, "b") == found.generations["b"], "another one has its environment"
