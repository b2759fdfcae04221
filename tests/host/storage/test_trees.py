"""Trees that share what nobody writes into, and what was written into them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from comfy_machine.host.storage import trees
from comfy_machine.host.system import files


def is_native(name: str) -> bool:
    return name.endswith(".so")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "tree"
    (top / "pack" / "__pycache__").mkdir(parents=True)
    (top / "pack" / "__init__.py").write_text("x")
    (top / "pack" / "__pycache__" / "__init__.pyc").write_text("bytecode")
    (top / "pack" / "core.so").write_text("machine code")
    (top / "program").write_text("#!")
    (top / "program").chmod(0o755)
    (top / "link").symlink_to("pack")
    for path in (top / "program", top / "pack" / "__init__.py"):
        os.utime(path, ns=(1, 1_700_000_000_123_456_789))
    return top


def test_a_copy_shares_what_is_to_be_shared_and_nothing_else(tree: Path, tmp_path: Path) -> None:
    copy = tmp_path / "deep" / "copy"
    trees.copy(tree, copy, is_native)
    assert (copy / "pack" / "core.so").samefile(tree / "pack" / "core.so")
    for name in ("pack/__init__.py", "pack/__pycache__/__init__.pyc", "program"):
        assert not (copy / name).samefile(tree / name)
        assert (copy / name).read_text() == (tree / name).read_text()
        assert (copy / name).stat().st_mtime_ns == (tree / name).stat().st_mtime_ns, "or bytecode"
    assert (copy / "program").stat().st_mode & 0o777 == 0o755
    assert files.link_target(copy / "link") == "pack"


def test_what_cannot_be_a_hard_link_is_copied(tree: Path, tmp_path: Path) -> None:
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs two file systems")
    copy = other / f"{tmp_path.name}-{os.getpid()}"
    try:
        trees.copy(tree, copy, is_native)
        assert (copy / "pack" / "core.so").read_text() == "machine code"
    finally:
        files.remove(copy)


def put_back_the_time(path: Path) -> None:
    before = path.stat()
    path.write_text(path.read_text()[::-1])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize(
    ("write", "found"),
    [
        (lambda top: (top / "pack" / "__init__.py").write_text("y"), ["pack/__init__.py"]),
        (lambda top: put_back_the_time(top / "pack" / "__init__.py"), ["pack/__init__.py"]),
        (lambda top: (top / "pack" / "core.so").write_text("z"), ["pack/core.so"]),
        (lambda top: (top / "new.py").write_text(""), ["new.py"]),
        (lambda top: os.link(top / "pack" / "core.so", top.parent / "x"), []),
        (lambda top: (top / "pack" / "__pycache__" / "__init__.pyc").write_text(""), []),
    ],
)
def test_a_look_finds_what_was_written_since(
    tree: Path, write: Callable[[Path], object], found: list[str]
) -> None:
    moment = trees.now(tree)
    while trees.now(tree) == moment:  # The clock of a file system ticks.
        pass
    moment = trees.now(tree)
    write(tree)
    look = trees.scan(tree, moment, is_native)
    assert list(look.written) == found
    assert {"pack/__init__.py", "pack/core.so", "program", "link"} <= look.every
