"""doit whose output is closed, on a full disk, or has no reader: it ends with a line at most."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from comfy_machine.host.system import files, private_folder
from tests.rig import PROJECT, SIMULATOR, Rig

COMMANDS = ("list", "info directories", "help", "status", "plan", "schema", "verify")
FULL = "can't be written: No space left on device"


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """A machine file; nothing is installed and nothing runs."""
    spec = {"workspace": "ws", "comfyui": {"path": str(SIMULATOR)}, "python": {"torch": "none"}}
    yield Rig(tmp_path, {**spec, "instances": {"cpu_only": True}})
    files.remove(private_folder.folder(tmp_path / "ws"))


def shell(rig: Rig, command: str, redirection: str) -> tuple[int, list[str]]:
    """doit's exit code and its lines on standard error, with an output of the shell's."""
    line = f'set -o pipefail; "$@" {command} {redirection}'
    ended = subprocess.run(
        ["bash", "-c", line, "bash", *rig.command()],
        cwd=PROJECT,
        env=rig.environ(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    return ended.returncode, ended.stderr.splitlines()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_disk_is_named_in_one_line(rig: Rig, command: str) -> None:
    name = command.split()[0]
    assert shell(rig, command, ">/dev/full") == (1, [f"{name}: standard output {FULL}"])


@pytest.mark.parametrize("command", COMMANDS)
def test_a_reader_that_is_gone_ends_it_as_the_shell_ends_others(rig: Rig, command: str) -> None:
    assert shell(rig, command, "| exec head -c 0") == (141, [])


@pytest.mark.parametrize("command", COMMANDS)
def test_a_closed_output_changes_nothing_else(rig: Rig, command: str) -> None:
    expected = shell(rig, command, ">/dev/null")
    assert shell(rig, command, ">&-") == expected
    assert shell(rig, command, ">&- 2>&- <&-") == (expected[0], [])


def test_a_run_continues_without_its_output(rig: Rig) -> None:
    note = "the output can't be written (No space left on device): the run continues"
    for redirection, lines in ((">/dev/full", [note]), ("| exec head -c 0", []), (">&-", [])):
        files.remove(rig.layout.machine)
        assert shell(rig, "directories", redirection) == (0, lines)
        assert rig.layout.machine.is_dir()


def test_what_a_closed_output_leaves_open_is_no_file_of_ours(rig: Rig) -> None:
    assert shell(rig, "directories", ">&- 2>&- <&-") == (0, [])
    lock = private_folder.folder(rig.workspace) / "run.lock"
    assert b"\n" not in lock.read_bytes(), "nothing was printed into it"
