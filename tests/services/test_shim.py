"""The shim becomes the command, with what it was told."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import comfy_machine
from comfy_machine import limits

SHIM = Path(comfy_machine.__file__).parent / "services" / "shim.py"
SHOW = """
import json, os, resource, sys
limits = resource.getrlimit(resource.RLIMIT_NOFILE)
nice = os.getpriority(os.PRIO_PROCESS, 0)
print(json.dumps([os.getpid(), sys.argv[1:], nice, limits, dict(os.environ)]))
"""


def through(*options: str, command: tuple[str, ...] = ()) -> tuple[int, list[Any]]:
    child = subprocess.Popen(
        [sys.executable, "-I", str(SHIM), *options, "--", sys.executable, "-c", SHOW, *command],
        env={"HOME": "/before", "KEPT": "yes", "PATH": os.environ["PATH"]},
        stdout=subprocess.PIPE,
    )
    printed, _ = child.communicate(timeout=30)
    return child.pid, json.loads(printed)


def test_the_command_has_the_shims_pid_and_its_own_arguments() -> None:
    own = ("--nice", "--", "-x", "")
    pid, (seen, arguments, *_) = through("--nice", "1", command=own)
    assert (seen, arguments) == (pid, list(own))


def test_variables_come_from_the_file_beside_those_that_are_there(tmp_path: Path) -> None:
    file = tmp_path / "env.json"
    file.write_text(json.dumps({"TOKEN": "t ü", "HOME": "/from-file"}), encoding="utf-8")
    environ = through("--env", str(file))[1][4]
    assert (environ["TOKEN"], environ["HOME"], environ["KEPT"]) == ("t ü", "/from-file", "yes")


def test_priority_and_open_files_are_set_and_the_hard_limit_stays() -> None:
    _, _, nice, files, _ = through("--nice", "7", "--open-files", "300")[1]
    assert nice == 7
    assert files[0] == 300
    assert files[1] == through()[1][3][1]


def test_a_hard_limit_that_is_lower_is_raised() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if not limits.has_capability(limits.SYS_RESOURCE):
        pytest.skip("needs CAP_SYS_RESOURCE")
    assert through("--open-files", str(hard + 10))[1][3] == [hard + 10, hard + 10]


def test_a_database_that_cannot_be_made_is_one_line_and_no_start(tmp_path: Path) -> None:
    (tmp_path / "databases").write_text("in the way")
    file = tmp_path / "databases" / "a.db"
    failed = subprocess.run(
        [sys.executable, "-I", SHIM, "--database", file, "--", sys.executable, "-c", SHOW],
        capture_output=True,
        text=True,
    )
    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr.startswith(f"{file} can't be created")
    assert failed.stderr.count("\n") == 1
