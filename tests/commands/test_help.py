"""doit help: our commands by purpose, and what each does."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from doit.doit_cmd import DoitConfig

from comfy_machine.commands.help import GROUPS, HIDDEN, TASKS
from tests.rig import DOIT, PROJECT
from tests.test_cli import PROGRAM, here, run

__all__ = ["here"]
DECLARED = DoitConfig().load_config_toml(str(PROJECT / "pyproject.toml"), "tool.doit")["COMMAND"]


def narrow(folder: Path, *words: str, columns: int = 80) -> list[str]:
    env = {"PATH": os.environ["PATH"], "COLUMNS": str(columns), "LC_ALL": "C.UTF-8"}
    printed = subprocess.check_output([str(PROGRAM), *words], cwd=folder, env=env, text=True)
    return printed.splitlines()


def test_every_command_has_a_purpose_under_which_it_is_found() -> None:
    grouped = [name for names in GROUPS.values() for name in names]
    assert len(grouped) == len(set(grouped))
    assert {*DECLARED, *TASKS} == {*grouped} | ({*HIDDEN} & {*DECLARED})


def test_it_needs_no_machine_file_and_fits_a_terminal_of_80_columns(tmp_path: Path) -> None:
    lines = narrow(tmp_path, "help")
    assert max(map(len, lines)) <= 80
    rows = [re.match(r"  ([a-z][a-z-]*) +(\S.*)", line) for line in lines]
    shown = {row[1] for row in rows if row}
    assert shown == {name for names in GROUPS.values() for name in names}
    continued = [line for line in lines if line.startswith(" " * 14)]
    assert continued == [], "each command has one line"
    assert max(map(len, narrow(tmp_path, "help", columns=60))) <= 60


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_it_is_asked_for_in_the_usual_ways(tmp_path: Path, option: str) -> None:
    assert run(tmp_path, option) == run(tmp_path, "help")
    said = run(tmp_path, "help", "restart")
    assert said.startswith("usage: comfy-machine restart [INSTANCE|GPU|WORKER ...]\n")
    assert run(tmp_path, "restart", "gpu0", option) == said


def test_what_makes_no_sense_here_is_not_offered(tmp_path: Path) -> None:
    said = run(tmp_path, "help") + run(PROJECT, "help", program=DOIT)
    assert not re.search(rf"^  ({'|'.join(HIDDEN)}) ", said, re.M)


def test_a_commands_own_options_are_shown_and_not_those_for_authors_of_tasks(
    tmp_path: Path,
) -> None:
    said = run(tmp_path, "help", "logs")
    assert "-n N, --lines=N" in said
    assert "[default: 50]" in said
    said = run(tmp_path, "help", "verify")
    assert "--fetch" in said
    assert "--pdb" not in said
    assert "config:" not in said


def test_it_names_the_options_as_the_program_takes_them(tmp_path: Path) -> None:
    assert "-m FILE, --machine=FILE" in run(tmp_path, "help", "status")
    assert "machine=FILE" in run(PROJECT, "help", "status", program=DOIT)
    assert "--machine" not in run(PROJECT, "help", "status", program=DOIT)


@pytest.mark.parametrize("name", sorted(TASKS))
def test_tasks_that_are_commands_are_known_without_a_machine(tmp_path: Path, name: str) -> None:
    assert run(tmp_path, "help", name).startswith(f"usage: comfy-machine {name}\n")


def test_a_task_is_explained_and_a_mistyped_word_corrected(here: Path) -> None:
    assert "Custom nodes' sources, at their commits." in run(here, "help", "nodes")
    assert run(here, "help", "restat", code=3) == (
        "ERROR: no command or task 'restat'; did you mean restart?\n"
    )
