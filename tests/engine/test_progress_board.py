"""The board of a run, as a person sees it: on a pty, at every width, and where there is none."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from comfy_machine.host.system import run_journal
from tests.conftest import MachineMaker
from tests.contract.client import until
from tests.forge import Forge
from tests.model_server import Ways, model_server
from tests.rig import PROJECT, Rig
from tests.screen import Terminal, terminal

WIDTHS = [60, 80, 120, 200]
STEP = re.compile(r"^[✓✗] (\S+) +[\d.]+ s$", re.M)


@dataclass
class Slow:
    """A machine with a node whose script waits for `go`."""

    rig: Rig
    go: Path

    @contextmanager
    def on(self, columns: int, *words: str, **env: str) -> Iterator[Terminal]:
        """doit in a terminal of this width."""
        command, environ = self.rig.command(*words), self.rig.environ(env)
        with terminal(command, columns, cwd=PROJECT, env=environ) as seen:
            yield seen


@pytest.fixture
def slow(machine: MachineMaker, forge: Forge, tmp_path: Path) -> Slow:
    go = tmp_path / "go"
    script = f"until test -e {go}; do sleep 0.05; done"
    return Slow(machine(custom_nodes=[{"url": forge.node("alpha").url, "script": script}]), go)


def is_clean(seen: Terminal) -> None:
    """Nothing of the board is left, and the cursor is back."""
    assert seen.cursor_is_visible
    assert not [line for line in seen.lines if " steps, " in line or "of alpha" in line]


@pytest.mark.parametrize("columns", WIDTHS)
def test_a_long_step_lives_on_the_screen_and_is_printed_once(slow: Slow, columns: int) -> None:
    with slow.on(columns, "build") as seen:
        row = seen.sees("generation:sc", "s")
        seen.sees("the script of alpha")
        assert len(row) < columns
        assert not seen.cursor_is_visible
        # Time passes on the screen.
        seen.until(lambda: seen.has("generation:sc") not in (row, None), 10, "it to move")
        seen.sees(" steps, ")
        slow.go.touch()
        assert seen.ends() == 0
        is_clean(seen)
        steps = STEP.findall(seen.text)
        assert len(steps) == len(set(steps)) >= 6, seen.text
        did = next(n for n, line in enumerate(seen.lines) if " tasks done, " in line)
        assert did > max(n for n, line in enumerate(seen.lines) if STEP.fullmatch(line))
        assert seen.lines[did + 1].startswith("next: doit machine=")


def test_nothing_is_left_of_the_board_after_a_change_of_the_width(slow: Slow) -> None:
    with slow.on(120, "build") as seen:
        seen.sees("the script of alpha")
        for columns in (70, 200, 60):
            begin = len(seen.written)
            seen.resize(columns)

            def is_drawn(begin: int = begin, columns: int = columns) -> bool:
                found = [line for line in seen.lines if line.startswith(tuple("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"))]
                fits = len(found) == 1 and columns - 5 < len(found[0]) < columns
                return fits and len(seen.written) > begin

            seen.until(is_drawn, 10, f"one board of {columns} columns")
        slow.go.touch()
        assert seen.ends() == 0
        is_clean(seen)


def test_ctrl_c_takes_the_board_away_and_brings_the_cursor_back(slow: Slow) -> None:
    with slow.on(80, "build") as seen:
        seen.sees("the script of alpha")
        assert not seen.cursor_is_visible
        seen.keys("\x03")
        assert seen.ends(20) == 130
        is_clean(seen)
        assert "stopped by SIGINT; run doit again to continue" in seen.lines
        assert "Traceback" not in seen.text


def detail(slow: Slow, name: str) -> str:
    """What the journal of the run says of a task."""
    found = run_journal.read(slow.rig.layout)
    return next((task.detail for task in found.tasks if task.name == name), "") if found else ""


@pytest.mark.parametrize("columns", [60, 100])
def test_a_download_shows_what_the_journal_and_so_the_page_know(
    machine: MachineMaker, columns: int
) -> None:
    gate = threading.Event()
    with model_server() as server:
        server.content["/one.bin"] = os.urandom(3_000_000)
        server.content["/two.bin"] = os.urandom(3_000_000)
        server.ways["/two.bin"] = Ways(before=lambda asked: gate.wait(60))
        files = [
            {"target": f"loras/{name}.bin", "url": f"{server.url}/{name}.bin"}
            for name in ("one", "two")
        ]
        slow = Slow(machine(models={"files": files}), Path())
        with slow.on(columns, "models") as seen:
            seen.sees("3.0 MB", "1 of 2 files")
            row = seen.sees("models", "s")
            assert len(row) < columns
            # The journal is written less often than the board is drawn.
            until(
                lambda: "1 of 2 files, 3.0 MB" in detail(slow, "models"), 20, "the journal to know"
            )
            gate.set()
            assert seen.ends() == 0
            assert seen.cursor_is_visible
            assert seen.has("✓ models")
            assert seen.has("2 models provided, 6.0 MB read in")


def test_without_a_terminal_there_are_plain_lines_now_and_then(slow: Slow, tmp_path: Path) -> None:
    printed = tmp_path / "printed"
    with slow.rig.going("run", "-o", str(printed), "build") as run:
        told = "  … generation:scripts: the script of alpha: "
        until(lambda: printed.exists() and told in printed.read_text(), 60, "a line of it")
        slow.go.touch()
        run.wait(60)
    text = printed.read_text()
    assert "\x1b" not in text
    assert len(STEP.findall(text)) == len(set(STEP.findall(text)))


def test_a_terminal_that_can_not_draw_gets_plain_lines(slow: Slow) -> None:
    with slow.on(80, "build", TERM_OF_TEST="dumb") as seen:
        seen.sees("… generation:scripts: the script of alpha")
        assert b"\x1b[?25l" not in seen.written
        assert b"\x1b[1A" not in seen.written
        slow.go.touch()
        assert seen.ends() == 0


def test_what_is_up_to_date_draws_nothing(slow: Slow) -> None:
    slow.go.touch()
    slow.rig.doit("build")
    with slow.on(80, "build") as seen:
        assert seen.ends() == 0
        assert b"\x1b[?25l" not in seen.written
        assert seen.lines[0].startswith("nothing to do, ")
        assert seen.lines[1].startswith("next: doit machine=")


def test_a_plan_is_followed_too_and_its_output_stays_as_it_is(slow: Slow) -> None:
    with slow.on(100, "plan", "build") as seen:
        assert seen.ends() == 0
        assert seen.cursor_is_visible
        assert seen.has("next: doit machine=")
        assert "build does that" in "".join(seen.lines[-3:])
    planned = slow.rig.doit("plan", "build")
    assert "generation:scripts" in planned.planned


def test_a_terminal_that_is_stopped_stops_no_step(slow: Slow) -> None:
    with slow.on(80, "build") as seen:
        seen.sees("the script of alpha")
        # Ctrl-S: what is written waits.
        seen.keys("\x13")
        slow.go.touch()

        def is_done() -> bool:
            found = run_journal.read(slow.rig.layout)
            tasks = found.tasks if found else ()
            return any(each.name == "generation:scripts" and not each.open for each in tasks)

        until(is_done, 60, "the step, which nobody sees")
        seen.keys("\x11")
        assert seen.ends() == 0
        is_clean(seen)
