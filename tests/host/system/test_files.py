"""Files that are whole or not there."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from comfy_machine.host.system import files, thread_pool
from comfy_machine.host.system.failure import Failure


def test_write_text_makes_folders_and_leaves_nothing_beside(tmp_path: Path) -> None:
    file = tmp_path / "a" / "b.txt"
    files.write_text(file, "first ü\n")
    files.write_text(file, "second\n")
    assert file.read_text(encoding="utf-8") == "second\n"
    assert [path.name for path in file.parent.iterdir()] == ["b.txt"]


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    texts = {letter * 300_000 for letter in "ab"}
    files.write_text(file, min(texts))
    seen: set[str] = set()
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.add(file.read_text())

    reader = threading.Thread(target=read)
    reader.start()
    for text in [*texts] * 15:
        files.write_text(file, text)
    done.set()
    reader.join()
    assert seen <= texts


def test_a_secret_is_for_its_owner_alone_also_over_an_open_file(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("old")
    file.chmod(0o644)
    files.write_text(file, "new", mode=0o600)
    assert file.stat().st_mode & 0o777 == 0o600


def test_write_text_replaces_a_link_and_not_what_it_points_to(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("real")
    (tmp_path / "link").symlink_to("real")
    files.write_text(tmp_path / "link", "new")
    assert (tmp_path / "real").read_text() == "real"
    assert not (tmp_path / "link").is_symlink()


def test_what_a_killed_process_left_lends_a_secret_no_rights(tmp_path: Path) -> None:
    left = tmp_path / f".{os.getpid()}.{threading.get_ident()}.part"
    left.write_text("left")
    left.chmod(0o644)
    files.write_text(tmp_path / "secret", "new", mode=0o600)
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600


def test_threads_that_write_the_same_file_are_not_in_each_other_s_way(tmp_path: Path) -> None:
    texts = [letter * 10_000 for letter in "abcd"]
    results = thread_pool.each(lambda text: files.write_text(tmp_path / "f", text), texts * 20, 4)
    assert [result for _, result in results if result is not None] == []
    assert (tmp_path / "f").read_text() in texts
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_a_failed_write_keeps_the_old_file_and_no_part(tmp_path: Path) -> None:
    file = tmp_path / "file"
    files.write_text(file, "old")
    with pytest.raises(UnicodeEncodeError):
        files.write_text(file, "\udcff")
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    "content",
    [b"", b'{"asked": {"pa', b"[1, 2]", b'"text"', b"null", b"\xff\xfe\x00", b"\0" * 64,
     pytest.param(b"[" * 100_000, id="deep")],
)  # fmt: skip
def test_a_damaged_receipt_reads_as_empty(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "receipt.json").write_bytes(content)
    assert files.read_receipt(tmp_path / "receipt.json") == {}


def test_a_receipt_that_is_missing_or_a_folder_reads_as_empty(tmp_path: Path) -> None:
    assert files.read_receipt(tmp_path / "none.json") == {}
    assert files.read_receipt(tmp_path) == {}


def test_a_receipt_comes_back_as_it_was_written(tmp_path: Path) -> None:
    receipt = {"b": [1, None, "ü\n"], "a": {"x": True}}
    files.write_receipt(tmp_path / "r.json", receipt)
    assert files.read_receipt(tmp_path / "r.json") == receipt


def test_a_link_is_made_with_its_folder_and_re_pointed(tmp_path: Path) -> None:
    link = tmp_path / "a" / "link"
    files.point(link, "nowhere")
    assert files.link_target(link) == "nowhere"
    files.point(link, tmp_path)
    assert files.link_target(link) == str(tmp_path)
    assert list(link.parent.iterdir()) == [link]


def test_a_link_to_a_folder_is_replaced_and_not_entered(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "link").symlink_to("old")
    files.point(tmp_path / "link", "new")
    assert files.link_target(tmp_path / "link") == "new"
    assert list((tmp_path / "old").iterdir()) == []


def test_a_link_is_there_at_every_moment_while_it_moves(tmp_path: Path) -> None:
    link = tmp_path / "link"
    files.point(link, "a")
    seen: set[str | None] = set()
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.add(files.link_target(link))

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(300):
        files.point(link, "b")
        files.point(link, "a")
    done.set()
    reader.join()
    assert seen <= {"a", "b"}


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_real_file_or_folder_is_never_replaced_by_a_link(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "place"
    if kind == "file":
        place.write_text("mine")
    else:
        (place / "mine").mkdir(parents=True)
    with pytest.raises(Failure, match=r"place must be a link to .*: move it away"):
        files.point(place, "target")
    assert not place.is_symlink()
    assert list(tmp_path.iterdir()) == [place]


def test_remove_never_follows_a_link(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("kept")
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "inner").symlink_to(kept)
    (tmp_path / "link").symlink_to(kept)
    files.remove(tree)
    files.remove(tmp_path / "link")
    assert list(tmp_path.iterdir()) == [kept]
    assert (kept / "file").read_text() == "kept"


def test_remove_takes_files_dangling_links_and_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "dangling").symlink_to("nowhere")
    for name in ("file", "dangling", "never-there"):
        files.remove(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def behind_closed_doors(top: Path, action: str) -> str:
    """Do something with `top`, in which there is a folder that this user may not enter; return
    what it printed."""
    (top / "closed" / "deeper").mkdir(parents=True)
    (top / "closed" / "deeper" / "file").touch()
    # Root needs no mode: without its right to override it stands before the same closed door.
    program = f"""
import sys
from pathlib import Path
from comfy_machine.host.system import files
top = Path(sys.argv[1])
(top / "closed" / "deeper").chmod(0)
(top / "closed").chmod(0)
{action}
"""
    without = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--"]
    prefix = without if os.geteuid() == 0 else []
    words = [*prefix, sys.executable, "-c", program, str(top)]
    done = subprocess.run(words, check=True, cwd=Path(__file__).parents[3], capture_output=True)
    for closed in top.glob("closed"):
        closed.chmod(0o700)
    return done.stdout.decode()


def test_remove_goes_through_folders_that_nobody_may_enter(tmp_path: Path) -> None:
    behind_closed_doors(tmp_path / "tree", "files.remove(top)")
    assert not (tmp_path / "tree").exists()


def test_a_tree_that_can_not_be_read_whole_is_an_error_of_the_system(tmp_path: Path) -> None:
    action = """
try:
    files.copy_tree(top, top.with_name("copy"))
except OSError as error:
    print(error.errno, error.strerror, error.filename)
"""
    tree = tmp_path / "tree"
    said = behind_closed_doors(tree, action)
    assert said.startswith(f"{errno.EIO} cannot access '{tree}/closed'")
    assert said.endswith(f" {tree}\n")


def test_remove_goes_through_read_only_folders(tmp_path: Path) -> None:
    inner = tmp_path / "tree" / "inner"
    inner.mkdir(parents=True)
    (inner / "file").write_text("")
    inner.chmod(0o500)
    files.remove(tmp_path / "tree")
    assert not (tmp_path / "tree").exists()


def test_a_copied_file_keeps_its_time_and_mode_and_a_link_stays_one(tmp_path: Path) -> None:
    script, link = tmp_path / "script", tmp_path / "link"
    script.write_text("x")
    script.chmod(0o750)
    link.symlink_to("nowhere")
    copied = tmp_path / "deep" / "script"
    files.copy_file(script, copied)
    files.copy_file(link, tmp_path / "deep" / "link")
    assert files.link_target(tmp_path / "deep" / "link") == "nowhere"
    status, before = copied.stat(), script.stat()
    assert (copied.read_text(), status.st_mode) == ("x", before.st_mode)
    assert status.st_mtime_ns == before.st_mtime_ns


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "tree"
    (top / "b" / "skipped").mkdir(parents=True)
    (top / "skipped").mkdir()
    (top / "a.py").write_text("a")
    (top / "b" / "c.py").write_text("c")
    (top / "b" / "skipped" / "d").write_text("d")
    (top / "skipped" / "e").write_text("e")
    (top / "link").symlink_to("b")
    return top


SKIP = frozenset({"skipped"})


def digest(tree: Path, skip: frozenset[str] = SKIP) -> str:
    return files.tree_digest(tree, files.walk(tree, skip))


def test_walk_names_files_and_links_sorted_and_skips_at_the_top_only(tree: Path) -> None:
    assert list(files.walk(tree, SKIP)) == [
        Path("a.py"), Path("link"), Path("b/c.py"), Path("b/skipped/d"),
    ]  # fmt: skip


def test_bytecode_git_and_skipped_folders_do_not_count(tree: Path) -> None:
    before = digest(tree)
    for name in ("__pycache__/a.pyc", "b/__pycache__/c.pyc", "b/c.pyc", ".git/HEAD", "skipped/f"):
        (tree / name).parent.mkdir(exist_ok=True)
        (tree / name).write_text("new")
    (tree / "a.py").touch()
    (tree / "empty").mkdir()
    assert digest(tree) == before
    assert digest(tree, frozenset()) != before


def edit(tree: Path) -> None:
    (tree / "b" / "c.py").write_text("C")


def rename(tree: Path) -> None:
    (tree / "a.py").rename(tree / "z.py")


def add(tree: Path) -> None:
    (tree / "b" / "new").write_text("")


def make_executable(tree: Path) -> None:
    (tree / "a.py").chmod(0o755)


def move_link(tree: Path) -> None:
    (tree / "link").unlink()
    (tree / "link").symlink_to("a.py")


def link_becomes_file(tree: Path) -> None:
    (tree / "link").unlink()
    (tree / "link").write_text("b")


@pytest.mark.parametrize("change", [edit, rename, add, make_executable, move_link,
                                    link_becomes_file])  # fmt: skip
def test_what_counts_changes_the_digest_of_a_tree(tree: Path, change: object) -> None:
    before = digest(tree)
    assert callable(change)
    change(tree)
    assert digest(tree) != before


def test_digests_of_equal_values_are_equal_whatever_their_order() -> None:
    assert files.digest({"a": 1, "b": [Path("x")]}) == files.digest({"b": [Path("x")], "a": 1})
    assert files.digest([1, 2]) != files.digest([2, 1])
    assert len(files.digest(None)) == 16


def test_a_file_that_is_not_there_has_no_digest(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert files.file_digest(tmp_path / "none") is None
    assert files.file_digest(tmp_path) is None
    assert files.file_digest(tmp_path / "file" / "below") is None


def test_what_is_staged_replaces_the_target_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "new" / "target"
    for content in ("first", "second"):
        with files.staging(target) as part:
            part.mkdir()
            (part / content).write_text(content)
    assert [path.name for path in target.iterdir()] == ["second"]
    with files.staging(tmp_path / "file") as part:
        part.write_text("whole")
    assert (tmp_path / "file").read_text() == "whole"
    assert {path.name for path in tmp_path.iterdir()} == {"new", "file"}


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_what_fails_while_it_is_staged_leaves_the_target_and_nothing_beside(
    tmp_path: Path, error: type[BaseException]
) -> None:
    (tmp_path / "target").write_text("old")
    left = tmp_path / ".target.part"
    left.mkdir()
    (left / "of a killed process").touch()

    def fail() -> None:
        with files.staging(tmp_path / "target") as part:
            part.mkdir()
            (part / "half").touch()
            raise error

    with pytest.raises(error):
        fail()
    assert [path.name for path in tmp_path.iterdir()] == ["target"]
    assert (tmp_path / "target").read_text() == "old"


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_what_is_no_file_is_named_and_leaves_nothing_open(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "it"
    os.mkfifo(path) if kind == "pipe" else path.mkdir()
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    with pytest.raises(OSError, match=str(path)) as caught:
        files.read_bytes(path)
    assert caught.value.filename == str(path)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
