"""A doit that was forked does what the program does."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests import starter
from tests.contract.client import until
from tests.rig import DOIT, PROJECT
from tests.starter import Starter


@pytest.mark.parametrize(
    ("text", "code"),
    [("workspace: ws\ncomfyui: {repo: https://localhost/x}\nhealth: {port: 9}\n", 0), ("- ü", 3)],
)
def test_it_says_the_same_and_ends_the_same(tmp_path: Path, text: str, code: int) -> None:
    file = tmp_path / "machine.yaml"
    file.write_text(text)
    env = os.environ | {"MACHINE": str(file)}
    words = [str(DOIT), "list", "--all"]
    real = subprocess.run(words, cwd=PROJECT, env=env, capture_output=True, text=True)
    assert real.returncode == code
    forked = [starter.run(words, PROJECT, env, 60) for _ in range(2)]
    assert forked == [(code, real.stdout + real.stderr)] * 2


def test_one_that_takes_too_long_is_killed(tmp_path: Path) -> None:
    pipe = tmp_path / "machine.yaml"
    os.mkfifo(pipe)
    with pytest.raises(subprocess.TimeoutExpired):
        starter.run([str(DOIT), "list", f"machine={pipe}"], PROJECT, os.environ, 0.5)
    until(lambda: not _somebody_reads(pipe), 10, "its end")


def _somebody_reads(pipe: Path) -> bool:
    try:
        os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
    except OSError:
        return False
    return True


def test_variables_that_are_read_when_python_starts_want_a_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fork(*_: object) -> tuple[int, str]:
        raise AssertionError("this is for a new process")

    monkeypatch.setattr(Starter, "run", fork)
    env = os.environ | {"PYTHONVERBOSE": "1"}
    said = starter.run([str(DOIT), "help"], PROJECT, env, 60)[1]
    assert "import 'comfy_machine" in said
    with pytest.raises(AssertionError, match="new process"):
        starter.run([str(DOIT), "help"], PROJECT, os.environ, 60)
