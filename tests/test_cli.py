"""comfy-machine: the same as doit, in any folder; in a clone both are there."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from comfy_machine import __version__
from tests.rig import DOIT, PROJECT

PROGRAM = DOIT.with_name("comfy-machine")


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A folder with a machine file of one instance and one custom node."""
    (tmp_path / "machine.yaml").write_text(
        "workspace: ws\n"
        "comfyui: {repo: https://localhost/ComfyUI.git}\n"
        "custom_nodes: [{url: https://localhost/pack}]\n"
        "instances: {gpus: 2, cpu_only: true}\n"
        "health: {server: false}\n"
    )
    return tmp_path


def run(folder: Path, *words: str, code: int = 0, program: Path = PROGRAM) -> str:
    ended = subprocess.run(
        [str(program), *words],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "LC_ALL": "C.UTF-8"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    assert ended.returncode == code, ended.stdout
    return ended.stdout


def test_it_has_the_same_tasks_as_doit_in_the_clone(here: Path) -> None:
    of_doit = run(PROJECT, "list", "--all", f"machine={here}/machine.yaml", program=DOIT)
    assert run(here, "list", "--all") == of_doit


def test_the_version_is_the_packages(here: Path) -> None:
    assert run(here, "--version") == f"comfy-machine {__version__}\n"


@pytest.mark.parametrize("program", [PROGRAM, DOIT], ids=lambda path: path.name)
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["staus"], "no command or task 'staus'; did you mean status?"),
        (["nodes:pak"], "no command or task 'nodes:pak'; did you mean nodes:pack?"),
        (["info", "healh"], "no task 'healh'; did you mean health?"),
        (["list", "healh"], "no task 'healh'; did you mean health?"),
        (["clean", "healh"], "no task 'healh'; did you mean health?"),
        (["probe", "comfyui_gpu0"], "no instance comfyui_gpu0; did you mean comfyui-gpu0; known: "),
        (["restart", "gup1"], "no instance gup1; did you mean gpu1; known: "),
        (["restart", "gpu7"], "no instance gpu7; known: comfyui-gpu0, comfyui-gpu1"),
        (["status", "--jsn"], "option --jsn not recognized; did you mean --json?"),
        (["logs", "--lines", "x"], "--lines takes a number, not 'x'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistyped_word_gets_one_line_with_the_likely_one(
    here: Path, program: Path, words: list[str], said: str
) -> None:
    folder = here if program == PROGRAM else PROJECT
    printed = run(folder, *words, f"machine={here}/machine.yaml", code=3, program=program)
    assert printed.startswith(f"ERROR: {said}")
    assert len(printed.splitlines()) == 1


def test_what_nothing_resembles_is_told_where_to_look(here: Path) -> None:
    said = run(here, "zzz", code=3)
    assert said == (
        "ERROR: no command or task 'zzz'; comfy-machine list shows the tasks, "
        "comfy-machine help the commands\n"
    )
    assert "no command or task 'strace'" in run(here, "strace", code=3)


def test_locked_and_force_are_options(here: Path) -> None:
    assert "locked=1" in run(here, "update", "--locked", code=3)
    assert run(here, "list", "--force", "--locked")


def test_an_unknown_variable_is_refused_as_doit_refuses_it(here: Path) -> None:
    said = run(here, "list", "lock=1", code=3)
    assert said.startswith("ERROR: comfy-machine lock=1: unknown variable 'lock'")


def test_the_folder_of_the_call_stays_the_current_one(here: Path, tmp_path: Path) -> None:
    inner = here / "inner"
    inner.mkdir()
    assert "directories" in run(inner, "-m", "../machine.yaml", "list")
    assert "no machine.yaml in" in run(inner, "list", code=3)


def test_a_folder_that_was_deleted_is_told_in_one_line(here: Path) -> None:
    gone = here / "gone"
    gone.mkdir()
    words = ["sh", "-c", f"rmdir {gone} && exec {PROGRAM} status"]
    ended = subprocess.run(words, cwd=gone, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (
        3, "ERROR: this folder was deleted: cd to another one\n"
    )  # fmt: skip
