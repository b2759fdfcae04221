"""The files around the code: they agree with it, and what they start is there."""

from __future__ import annotations

import re
import shlex
import subprocess

import yaml

from comfy_machine import __version__
from tests.rig import PROJECT


def test_the_newest_version_in_the_changelog_is_this_one() -> None:
    text = (PROJECT / "CHANGELOG.md").read_text()
    versions = re.findall(r"^## \[(\d.*?)\] - \d{4}-\d\d-\d\d$", text, re.M)
    assert versions[0] == __version__


def test_the_version_is_written_in_one_place() -> None:
    search = ["git", "grep", "--name-only", "--fixed-strings", f'"{__version__}"', "--"]
    files = ["*.py", "pyproject.toml", "Makefile", "Dockerfile"]
    found = subprocess.check_output([*search, *files], cwd=PROJECT, text=True)
    assert found.split() == ["tasks/__init__.py"]


def test_the_hooks_before_a_commit_are_the_tools_of_the_venv() -> None:
    config = yaml.safe_load((PROJECT / ".pre-commit-config.yaml").read_text())
    (repository,) = config["repos"]
    assert repository["repo"] == "local", "no host is named"
    for hook in repository["hooks"]:
        program = shlex.split(hook["entry"])[0]
        assert program.startswith(".venv/bin/")
        subprocess.run([program, "--version"], cwd=PROJECT, check=True, capture_output=True)
