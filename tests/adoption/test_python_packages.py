"""What is installed in an environment, read from its metadata."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from comfy_machine.adoption import python_packages
from comfy_machine.adoption.python_packages import Environment


def installed(
    folder: Path,
    name: str,
    version: str = "1.0",
    *,
    requires: tuple[str, ...] = (),
    requested: bool = True,
    tag: str = "py3-none-any",
    origin: Any = None,
) -> None:
    """Write the metadata of a package into an environment."""
    info = folder / "lib" / "python3.12" / "site-packages" / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    lines = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}"]
    (info / "METADATA").write_text(
        "\n".join([*lines, *(f"Requires-Dist: {each}" for each in requires)])
    )
    (info / "WHEEL").write_text(f"Wheel-Version: 1.0\nTag: {tag}\n")
    if requested:
        (info / "REQUESTED").touch()
    if origin:
        (info / "direct_url.json").write_text(json.dumps(origin))


def read(folder: Path) -> Environment:
    found = python_packages.at(folder)
    assert found
    return found


def by_hand(folder: Path, *required: str) -> list[str]:
    return [
        each.name
        for each in python_packages.by_hand(
            read(folder).packages, dict.fromkeys(required, frozenset())
        )
    ]


def test_an_environment_is_found_by_its_folder_its_python_or_the_folder_around_it(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "venv"
    installed(folder, "Some_Thing")
    (folder / "bin").mkdir()
    (folder / "bin" / "python").symlink_to(sys.executable)
    for place in (folder, folder / "bin" / "python"):
        assert read(place).packages["some-thing"].version == "1.0"
    found = python_packages.find([tmp_path / "nothing", tmp_path])
    assert found
    assert (found.folder, found.python) == (folder, "3.12")
    assert python_packages.at(tmp_path) is None


def test_what_was_installed_by_name_and_nothing_requires_is_by_hand(tmp_path: Path) -> None:
    installed(tmp_path, "wished", requires=("needed", "extra-only; extra == 'all'"))
    installed(tmp_path, "needed")
    installed(tmp_path, "extra-only")
    installed(tmp_path, "leftover", requested=False)
    installed(tmp_path, "in-a-file")
    for name in ("pip", "torch"):
        installed(tmp_path, name)
    assert by_hand(tmp_path, "in-a-file") == ["extra-only", "wished"]
    asked = {"in-a-file": frozenset[str](), "wished": frozenset(["all"])}
    packages = read(tmp_path).packages
    assert not [*python_packages.by_hand(packages, asked)], "an extra that a file asks for"


def test_versions_whose_files_are_for_another_python_are_not_preferred(tmp_path: Path) -> None:
    here = f"cp3{sys.version_info.minor}"
    installed(tmp_path, "pure")
    installed(tmp_path, "built", tag=f"{here}-{here}-win_amd64")
    installed(tmp_path, "stable", tag="cp38-abi3-manylinux_2_17_x86_64")
    installed(tmp_path, "other", tag="cp35-cp35m-manylinux_2_17_x86_64")
    preferred, others = python_packages.preferences(read(tmp_path).packages)
    assert set(preferred) == {"pure", "built", "stable"}
    assert others == ["other"]


def test_a_package_of_git_is_preferred_at_its_commit_and_one_of_a_folder_is_not(
    tmp_path: Path,
) -> None:
    url, commit = "https://localhost/of-git", "a" * 40
    origin = {"url": url, "vcs_info": {"vcs": "git", "commit_id": commit}}
    installed(tmp_path, "of-git", origin=origin)
    installed(tmp_path, "of-folder", origin={"url": "file:///src", "dir_info": {"editable": True}})
    preferred, _ = python_packages.preferences(read(tmp_path).packages)
    assert (preferred["of-git"].git, preferred["of-git"].commit) == (url, commit)
    assert set(preferred) == {"of-git"}


@pytest.mark.parametrize(
    ("version", "build"),
    [("2.9.1", "pypi"), ("2.9.1+cpu", "cpu"), ("2.9.1+cu128", "cu128"),
     ("2.9.1+rocm6.3", "rocm6.3"), ("2.6.0a0+nv24.10", ""),
     ("2.10.0.dev20251101+cu130", ""), ("2.9.1+mine", "")],
)  # fmt: skip
def test_the_build_of_torch_is_in_its_version(tmp_path: Path, version: str, build: str) -> None:
    installed(tmp_path, "torch", version)
    packages = read(tmp_path).packages
    assert python_packages.torch_build(packages) == build
    assert ("torch" in python_packages.preferences(packages)[0]) == bool(build)


def test_what_an_interrupted_installation_left_is_no_package(tmp_path: Path) -> None:
    installed(tmp_path, "whole")
    (tmp_path / "lib/python3.12/site-packages/half-1.0.dist-info").mkdir()
    assert set(read(tmp_path).packages) == {"whole"}


def test_an_address_with_credentials_is_kept_nowhere(tmp_path: Path) -> None:
    about = {"vcs": "git", "commit_id": "a" * 40}
    installed(tmp_path, "private", origin={"url": "https://me:pw@localhost/a", "vcs_info": about})
    assert python_packages.preferences(read(tmp_path).packages) == ({}, ["private"])
