"""What a build's log says that the system lacks."""

from __future__ import annotations

from pathlib import Path

import pytest

from comfy_machine.host.python import build_log
from comfy_machine.host.python.build_log import Missing


@pytest.mark.parametrize(
    ("log", "said"),
    [
        (
            "src/a.c:9:10: fatal error: portaudio.h: No such file or directory\n"
            "error: command '/usr/bin/gcc' failed with exit code 1",
            "portaudio.h is missing (apt install portaudio19-dev)",
        ),
        (
            "a.c:3:10: fatal error: 'Python.h' file not found",
            "Python.h is missing (apt install pyt",
        ),
        ("x.c:1:1: fatal error: frob/nicate.h: No such file or directory", "frob/nicate.h is miss"),
        ("error: command 'gcc' failed: No such file or directory", "gcc is missing (apt install b"),
        ("unable to execute 'gcc': No such file or directory", "gcc is missing (apt install b"),
        ("/bin/sh: 1: nvcc: not found", "nvcc is missing (apt install nvidia-cuda-toolkit)"),
        ("OSError: CUDA_HOME environment variable is not set. Please", "nvcc is missing"),
        ("error: can't find Rust compiler", "cargo is missing (apt install cargo)"),
        (
            "Cargo, the Rust package manager, is not installed or is not on PATH.",
            "cargo is missing",
        ),
        ("No such file or directory: 'cmake'", None),
        ("[Errno 2] No such file or directory: 'cmake'", "cmake is missing (apt install cmake)"),
        ('ERROR: Dependency "cairo" not found (tried pkg-config)', "cairo is missing (apt install"),
        (
            "Package libavformat was not found in the pkg-config search path",
            "libavformat is missing",
        ),
        ("/usr/bin/ld: cannot find -lportaudio: No such file", "portaudio is missing (apt install"),
        (
            "meson.build:1:0: ERROR: Unknown compiler(s): [['cc'], ['gcc']]",
            "cc is missing (apt ins",
        ),
        ("sh: pkg-config: command not found", "pkg-config is missing (apt install pkg-config)"),
        ("ModuleNotFoundError: No module named 'torch.utils'", "its build needs torch and doesn't"),
        ("error: something else went wrong", None),
    ],
)
def test_what_is_missing_is_read_from_the_log(log: str, said: str | None) -> None:
    found = build_log.missing(f"noise\n{log}\nmore noise\n")
    assert str(found).startswith(said) if said else found is None


def test_a_program_that_has_come_meanwhile_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not Missing("program", "frobnicate").there
    (tmp_path / "frobnicate").symlink_to("/bin/true")
    assert Missing("program", "frobnicate").there


def test_of_a_header_that_is_not_in_the_table_the_system_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert build_log.debian(Missing("header", "frob.h")) is None
    asked = tmp_path / "apt-file"
    asked.write_text('#!/bin/sh\n[ "$4" = "/frob\\.h$" ] && echo libfrob-dev\n')
    asked.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert str(Missing("header", "frob.h")) == "frob.h is missing (apt install libfrob-dev)"
    assert build_log.debian(Missing("header", "other.h")) is None
