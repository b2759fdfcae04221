"""Commands that take long show the board that runs show, and status fits into its terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.conftest import MachineMaker
from tests.forge import Forge
from tests.instances.test_roll import WAIT, submit
from tests.rig import PROJECT, Rig
from tests.screen import Terminal, terminal


@contextmanager
def on_screen(rig: Rig, columns: int, *words: str) -> Iterator[Terminal]:
    with terminal(rig.command(*words), columns, cwd=PROJECT, env=rig.environ()) as seen:
        yield seen


def ended(seen: Terminal) -> list[str]:
    """The lines of a command that succeeded and left nothing of its board."""
    assert seen.ends() == 0, seen.text
    assert seen.cursor_is_visible
    return seen.lines


def test_every_command_that_waits_says_for_what(
    machine: MachineMaker, forge: Forge, tmp_path: Path
) -> None:
    node = forge.repository("wait", {"__init__.py": WAIT})
    rig = machine(custom_nodes=[{"url": node.url}], instances={"drain_settle": 2})
    rig.doit()

    done = tmp_path / "done"
    submit(rig, done)
    with on_screen(rig, 80, "smoke") as seen:
        seen.sees("smoke", "one job in comfyui-gpu0")
        done.touch()
        (line,) = [line for line in ended(seen) if "comfyui-gpu0" in line]
        assert line.startswith("✓ comfyui-gpu0: ")

    done.unlink()
    submit(rig, done)
    with on_screen(rig, 80, "restart") as seen:
        row = seen.sees("restart", "comfyui-gpu0 drains: ends 1 job")
        assert len(row) < 80
        done.touch()
        seen.sees("restart", "its results stay readable")
        lines = [line.strip() for line in ended(seen)]
        assert lines == ["comfyui-gpu0 restarts after 1 job", "comfyui-gpu0 is healthy"]

    for command in ("verify", "repair"):
        with on_screen(rig, 60, command) as seen:
            assert ended(seen)

    done.unlink()
    submit(rig, done)
    with on_screen(rig, 60, "down") as seen:
        assert ended(seen) == ["1 stopped"], "mostly before there is anything to wait for"

    with on_screen(rig, 60, "probe", "--wait", "60") as seen:
        seen.sees("waits until it is healthy: unhealthy")
        rig.doit()
        assert ended(seen) == ["healthy"]


def test_status_folds_what_does_not_fit_below_its_row(machine: MachineMaker) -> None:
    rig = machine(instances={"gpus": 2})
    for columns in (60, 80, 120, 200):
        with on_screen(rig, columns, "status") as seen:
            assert seen.ends() == 1
            table = seen.lines[: next(n for n, line in enumerate(seen.lines) if "machine:" in line)]
        assert max(map(len, table)) <= columns
        assert [line.split()[0] for line in table if line.startswith("comfyui-gpu")] == [
            "comfyui-gpu0",
            "comfyui-gpu1",
        ]
    piped = rig.doit("status", code=1).output.splitlines()
    assert piped[0].split()[-2:] == ["why", "not"], "for programs it is as wide as it is"
