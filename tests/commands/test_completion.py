"""doit completion: real shells complete what a person types, as the help tells them to."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from comfy_machine.commands.completion import SHELLS, WORDS
from tests.test_cli import PROGRAM, here, run

__all__ = ["here"]
CONTROL = re.compile(r"\x1b[\[\]()?][0-9;?>=]*[ -/]*[@-~]|[\x07\x0f\r]")
TAB, LINE = "\t", "\x15"
"""What a person presses to complete, and to empty the line."""
INSTALLS = {
    "bash": "source <(comfy-machine completion bash)",
    "fish": "comfy-machine completion fish | source",
    "zsh": "source <(comfy-machine completion zsh)",
}


def environment(folder: Path) -> dict[str, str]:
    path = f"{PROGRAM.parent}:{os.environ['PATH']}"
    return {"PATH": path, "HOME": str(folder), "LC_ALL": "C.UTF-8", "TERM": "dumb"}


class Terminal:
    """A shell with a terminal of its own; `seen` is what it shows."""

    def __init__(self, words: list[str], folder: Path) -> None:
        self._terminal, theirs = pty.openpty()
        self._process = subprocess.Popen(
            words, cwd=folder, env=environment(folder), start_new_session=True,
            stdin=theirs, stdout=theirs, stderr=theirs,
        )  # fmt: skip
        os.close(theirs)
        self.seen = ""

    def type(self, text: str) -> None:
        self.seen = ""
        os.write(self._terminal, text.encode())

    def wait(self, pattern: str) -> str:
        """Read on until it shows something of this pattern."""
        deadline = time.monotonic() + 60
        while not (found := re.search(pattern, CONTROL.sub("", self.seen))):
            left = max(0.0, deadline - time.monotonic())
            assert select.select([self._terminal], [], [], left)[0], self.seen
            self.seen += os.read(self._terminal, 1 << 16).decode(errors="replace")
        return found[0]

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._terminal)


@contextmanager
def shell(name: str, folder: Path) -> Iterator[Terminal]:
    """An interactive shell that has read the script as the help tells it to."""
    if not shutil.which(name):
        pytest.skip(f"{name} isn't installed")
    words = {"bash": ["bash", "--norc", "--noprofile", "-i"], "zsh": ["zsh", "-f", "-i"]}[name]
    terminal = Terminal(words, folder)
    try:
        terminal.type(f"PS1='ready> '; {INSTALLS[name]}\n")
        terminal.wait(r"[^']ready> ")
        yield terminal
    finally:
        terminal.close()


COMPLETED = [
    ("comfy-machine sta", "status "),
    ("comfy-machine nod", "nodes "),
    ("comfy-machine status --js", "--json "),
    ("comfy-machine status --mach", "--machine="),
    ("comfy-machine restart comfyui-gpu1", "comfyui-gpu1 "),
    ("comfy-machine plan nodes:p", "nodes:pack "),
    ("comfy-machine -m other.yaml restart comfyui-gpu", "comfyui-gpu0 "),
    ("comfy-machine --machine=other.yaml restart comf", "comfyui-gpu0 "),
    ("comfy-machine plan -m oth", "other.yaml "),
    ("comfy-machine plan --machine=oth", "--machine=other.yaml "),
    ("comfy-machine completion fi", "fish "),
]


@pytest.fixture
def two(here: Path) -> Path:
    """A folder with two machine files, the other of a single instance."""
    text = (here / "machine.yaml").read_text()
    (here / "other.yaml").write_text(text.replace("gpus: 2", "gpus: 1"))
    return here


@pytest.mark.parametrize("name", ["bash", "zsh"])
def test_a_tab_completes_the_word(two: Path, name: str) -> None:
    with shell(name, two) as terminal:
        for typed, word in COMPLETED:
            terminal.type(typed + TAB)
            whole = f"{typed.rpartition(' ')[0]} {word}"
            terminal.wait(re.escape(whole).replace("\\ ", " +"))
            terminal.type(LINE)


@pytest.mark.parametrize("name", ["bash", "zsh"])
def test_two_tabs_list_what_fits(two: Path, name: str) -> None:
    with shell(name, two) as terminal:
        terminal.type("comfy-machine restart " + 3 * TAB)
        terminal.wait(r"comfyui-gpu0[^$]*comfyui-gpu1")
        terminal.type(LINE + "comfy-machine plan pm2:" + 3 * TAB)
        terminal.wait(r"gpu0[^$]*gpu1")


@pytest.mark.parametrize(("typed", "word"), COMPLETED)
def test_fish_completes_the_word(two: Path, typed: str, word: str) -> None:
    if not shutil.which("fish"):
        pytest.skip("fish isn't installed")
    asked = f'{INSTALLS["fish"]}; complete --do-complete "$argv"'
    said = subprocess.check_output(
        ["fish", "--no-config", "--command", asked, typed], cwd=two, env=environment(two), text=True
    )
    assert word.strip() in [line.partition("\t")[0] for line in said.splitlines()]


def candidates(folder: Path, *words: str) -> list[str]:
    printed = subprocess.check_output(
        [str(PROGRAM), "completion", "words"],
        cwd=folder, env=environment(folder) | {WORDS: "\n".join([*words, "."])}, text=True,
    )  # fmt: skip
    return [line.partition("\t")[0] for line in printed.splitlines()]


def test_verbs_and_stages_are_offered_first_and_each_once(here: Path) -> None:
    found = candidates(here, "")
    assert {"up", "build", "status", "nodes", "validation"} <= set(found)
    assert len(found) == len(set(found))
    assert not {"run", "strace"} & set(found)
    assert "status" in candidates(here, "--locked", "sta")
    assert candidates(here, "build", "mod") == ["models"]


def test_without_a_machine_file_verbs_are_still_completed(tmp_path: Path) -> None:
    assert candidates(tmp_path, "in") == ["info", "init"]
    assert candidates(tmp_path, "restart", "") == []
    (tmp_path / "machine.yaml").write_text("- wrong")
    assert candidates(tmp_path, "sta") == ["status"]
    assert candidates(tmp_path, "restart", "") == []


def test_names_are_those_that_the_command_takes(here: Path) -> None:
    assert candidates(here, "cordon", "") == ["gpu0", "gpu1"]
    assert candidates(here, "probe", "") == ["comfyui-gpu0", "comfyui-gpu1"]
    assert "pack" in candidates(here, "update", "")
    assert candidates(here, "status", "") == []
    assert candidates(here, "help", "restar") == ["restart"]
    assert candidates(here, "list", "dire") == ["directories"]


@pytest.mark.parametrize("name", SHELLS)
def test_the_help_has_the_line_that_installs_it(here: Path, name: str) -> None:
    assert f"    {INSTALLS[name]}" in run(here, "help", "completion").splitlines()


def test_a_shell_that_it_does_not_know_is_refused(here: Path) -> None:
    assert run(here, "completion", "csh", code=3) == "ERROR: name a shell: bash, fish, zsh\n"
