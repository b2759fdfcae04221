"""pip and uv, held to what an environment has."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from comfy_machine.host.python import constraints, environments, uv
from comfy_machine.host.python.constraints import VARIABLES
from comfy_machine.host.storage import digest_folders
from comfy_machine.host.system import process
from comfy_machine.spec.layout import Layout


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """One with idna in it, in a folder whose name has a space."""
    folder = tmp_path / "a place" / "environment"
    log = tmp_path / "log"
    uv.make_environment(folder, Path(sys.executable), log)
    file = tmp_path / "packages.txt"
    file.write_text("idna==3.7\npip\n")
    uv.install(folder, file, [], {}, log)
    constraints.write(folder, ["idna", "not-there"], {"torch": "2.4.0+cpu"})
    return folder


def test_the_versions_that_are_there_are_named_and_what_is_preinstalled(environment: Path) -> None:
    text = (environment / environments.CONSTRAINTS).read_text()
    assert text == "idna==3.7\ntorch==2.4.0+cpu\n"


@pytest.mark.parametrize("program", ["pip", "uv"])
def test_pip_and_uv_refuse_another_version_and_heed_the_users_own_file_too(
    environment: Path, tmp_path: Path, program: str
) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_text("six==1.15.0\n")
    python = environment / "bin" / "python"
    programs: dict[str, list[str | Path]] = {
        "pip": [python, "-m", "pip", "install", "--dry-run"],
        "uv": [uv.binary(), "pip", "install", "--dry-run", "--python", python],
    }
    theirs = process.allowed_environment(os.environ, installer=True)
    env = constraints.within(environment, theirs | dict.fromkeys(VARIABLES, str(mine)))

    def said(*words: str) -> str:
        ended = subprocess.run(
            [*programs[program], *words], env=env, capture_output=True, text=True
        )
        return ended.stdout + ended.stderr

    assert "idna==3.7" in said("idna==3.6"), "it says what is in the way"
    assert environments.installed(environment)["idna"] == "3.7"
    six = said("six")
    assert "1.15.0" in six
    assert "Would install" in six


def test_an_environment_of_before_has_no_such_file_and_none_is_named(environment: Path) -> None:
    assert set(constraints.within(environment, {})) == {"UV_LINK_MODE", *VARIABLES}
    (environment / environments.CONSTRAINTS).unlink()
    assert constraints.within(environment, {"A": "b"}) == {"UV_LINK_MODE": "copy", "A": "b"}
    # A plan's is not made yet, and is to look as it will.
    assert VARIABLES[0] in constraints.within(environment.with_name("later"), {})


def test_what_is_neither_recorded_nor_locked_is_an_addition_and_no_damage(built: Layout) -> None:
    (home,) = digest_folders.list_folders(built.environments)
    assert environments.additions(home) == {}
    by_hand = uv.site_packages(home) / "By_Hand-1.5.dist-info"
    by_hand.mkdir()
    try:
        assert environments.additions(home) == {"by-hand": "1.5"}
        assert environments.damage(home, digest_folders.read(home)) is None
    finally:
        by_hand.rmdir()
