"""Compiled modules: those that Python can load, and those that end an import."""

from __future__ import annotations

import py_compile
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from comfy_machine.host.python import bytecode


def compiled(folder: Path, name: str) -> Path:
    source = folder / f"{name}.py"
    source.write_text("def f(): return [1, 2, 3]\n")
    return Path(str(py_compile.compile(str(source), doraise=True)))


@pytest.mark.parametrize(
    "content",
    [
        lambda whole: b"",
        lambda whole: whole[:10],
        lambda whole: whole[:30],
        lambda whole: whole[: len(whole) // 2],
        lambda whole: whole[:16] + b"\xff" * 100,
    ],
)
def test_what_python_can_not_load_is_found_and_nothing_else(
    tmp_path: Path, content: Callable[[bytes], bytes]
) -> None:
    paths = [compiled(tmp_path, name) for name in ("a", "b", "c")]
    paths[1].write_bytes(content(paths[1].read_bytes()))
    assert bytecode.damaged([tmp_path]) == [paths[1]]


def test_that_of_another_python_is_left_alone(tmp_path: Path) -> None:
    path = compiled(tmp_path, "a")
    other = path.with_name(path.name.replace(sys.implementation.cache_tag or "", "cpython-27"))
    other.write_bytes(b"other")
    path.write_bytes(b"\0\0\0\0" + path.read_bytes()[4:30])
    assert bytecode.damaged([tmp_path]) == []
