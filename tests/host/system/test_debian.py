"""Which Debian package has what is missing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from comfy_machine.host.system import debian


@pytest.mark.parametrize(
    ("soname", "package"),
    [
        ("libGL.so.1", "libgl1"),
        ("libgomp.so.1", "libgomp1"),
        ("libportaudio.so.2", "libportaudio2"),
        ("libsndfile.so.1", "libsndfile1"),
        ("libX11.so.6", "libx11-6"),
        ("libsqlite3.so.0", "libsqlite3-0"),
        ("libespeak-ng.so.1", "libespeak-ng1"),
        ("libgtk-3.so.0", "libgtk-3-0"),
        ("libgcc_s.so.1", "libgcc-s1"),
        ("libstdc++.so.6", "libstdc++6"),
        ("libpython3.11.so.1.0", "libpython3.11"),
        ("libgthread-2.0.so.0", "libglib2.0-0"),
        ("libglib-2.0.so.0", "libglib2.0-0"),
        ("libz.so.1", "zlib1g"),
        ("libGLU.so.1", "libglu1-mesa"),
    ],
)
def test_a_librarys_package_is_named_by_its_soname(soname: str, package: str) -> None:
    assert debian.library_candidates(soname)[0] == package


def test_what_is_no_soname_has_no_package() -> None:
    for text in ("libevil.so.1; rm -rf /", "--help", "../libx.so", ""):
        assert debian.library_candidates(text) == []
        assert debian.package_of_program(text) is None


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Debian without apt's lists, as container images are."""
    (tmp_path / "os-release").write_text('NAME="Mint"\nID=linuxmint\nID_LIKE="ubuntu debian"\n')
    (tmp_path / "lists").mkdir()
    monkeypatch.setattr(debian, "OS_RELEASE", tmp_path / "os-release")
    monkeypatch.setattr(debian, "LISTS", tmp_path / "lists")
    debian._known.cache_clear()
    return tmp_path


def give_lists(system: Path, monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    """Stands for apt-cache of another release than this one."""
    (system / "lists" / "deb_Packages.lz4").write_text("")
    program = system / "bin" / "apt-cache"
    program.parent.mkdir()
    known = " ".join(packages)
    program.write_text(
        "#!/bin/sh\n"
        f'for name; do case " {known} " in *" $name "*) echo "Package: $name";; esac; done\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")


def test_without_lists_the_likeliest_package_is_named(system: Path) -> None:
    assert debian.package_of_library("libgthread-2.0.so.0") == "libglib2.0-0"
    assert debian.package_of_program("ffmpeg") == "ffmpeg"
    assert debian.package_of_program("ffprobe") == "ffmpeg"
    assert debian.package_of_program("anything") is None


def test_with_lists_a_package_is_one_that_apt_has(
    system: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_lists(system, monkeypatch, "libglib2.0-0t64", "libgl1", "libgstreamer1.0-0", "git-lfs")
    assert debian.package_of_library("libgthread-2.0.so.0") == "libglib2.0-0t64"
    assert debian.package_of_library("libGL.so.1") == "libgl1"
    assert debian.package_of_library("libgstreamer-1.0.so.0") == "libgstreamer1.0-0"
    assert debian.package_of_library("libnobody-has-it.so.7") is None
    assert debian.package_of_program("git-lfs") == "git-lfs"
    assert debian.package_of_program("nobody-has-it") is None


def test_another_system_has_other_packages(system: Path) -> None:
    (system / "os-release").write_text("ID=fedora\n")
    assert debian.package_of_library("libGL.so.1") is None
    assert debian.package_of_program("ffmpeg") is None


@pytest.mark.skipif(not debian.is_debian() or not debian._has_lists(), reason="needs apt's lists")
def test_this_systems_own_lists_are_understood() -> None:
    assert debian.package_of_library("libgomp.so.1") == "libgomp1"
    assert debian.package_of_library("libnobody-has-it.so.7") is None
