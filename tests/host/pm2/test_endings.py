"""Why a process ended: what real PM2 and the shim note of it, and what its log may add."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from comfy_machine.host.pm2 import apps, endings, exits, pm2, process_starts, stops
from comfy_machine.host.pm2.endings import Ending
from comfy_machine.host.pm2.log_evidence import Blame
from comfy_machine.host.system import files, out_of_memory, private_folder, templates
from comfy_machine.spec.layout import Layout
from tests.conftest import link_supervisor
from tests.contract.client import until

SHIM = Path(pm2.__file__).parents[2] / "services" / "shim.py"
BANNER = "print('To see the GUI go to: http://127.0.0.1:8188', flush=True); "
RAISES = "raise ValueError('no luck')"
WAITS = "import time\nprint('ValueError: only said', flush=True)\ntime.sleep(1000)\n"
ENDS = {
    "exits": BANNER + "import os; os._exit(7)",
    "leaves": BANNER + "import sys; sys.exit('no licence')",
    "raises": BANNER + RAISES,
    "ended": BANNER + "import sys; sys.exit(0)",
    "killed": BANNER + "import os; os.kill(os.getpid(), 9)",
    "crashes": "import faulthandler, os; faulthandler.enable(); os.kill(os.getpid(), 11)",
}


@dataclass
class World:
    """A workspace with PM2 in it."""

    layout: Layout

    def start(self, programs: dict[str, str]) -> None:
        """Start apps through the shim; the text of a program is read at each of its starts."""
        declared = []
        for name, text in programs.items():
            self.program(name).write_text(text)
            command = [sys.executable, "-I", str(SHIM), "--", sys.executable, self.program(name)]
            marks = {apps.WORKSPACE: str(self.layout.workspace), apps.NAME: name}
            declared.append(
                {"name": name, "cwd": str(self.layout.workspace), "command": command, "env": marks,
                 "log": str(self.layout.log(name)), "secrets": {}}
            )  # fmt: skip
        rendered = json.loads(templates.render("instance.config.json.j2", apps=declared))
        pm2.start(self.layout, rendered["apps"])

    def program(self, name: str) -> Path:
        return self.layout.workspace / f"{name}.py"

    def next(self, name: str, before: int) -> int:
        """The pid of the app's next process, once its program has said a word."""

        def said() -> bool:
            start = process_starts.read(self.layout, name)[-1]
            text = self.layout.log(name).read_text()[start.offset :]
            return start.pid != before and bool(text)

        until(said, 30, "the next process")
        return self.last(name)

    def last(self, name: str) -> int:
        return process_starts.read(self.layout, name)[-1].pid

    def given_up(self, name: str) -> bool:
        return bool(pm2.apps(self.layout)[name]["pm2_env"]["status"] == "errored")


@pytest.fixture
def world(tmp_path: Path, supervisor: Path) -> Iterator[World]:
    layout = Layout(tmp_path / "ws")
    link_supervisor(supervisor, layout)
    layout.logs.mkdir()
    layout.state.mkdir()
    yield World(layout)
    pm2.kill(layout)
    files.remove(private_folder.folder(layout.workspace))


def test_each_end_is_told_from_its_exit_status_and_a_banner_is_never_to_blame(
    world: World,
) -> None:
    world.start(ENDS)
    until(lambda: all(map(world.given_up, ENDS)), 60, "PM2 to give up on all of them")
    told = {name: endings.settled(world.layout, name, None) for name in ENDS}
    lines = {name: len(world.layout.log(name).read_text().splitlines()) for name in ENDS}
    assert told["exits"] == Ending("exited", "it exited with code 7")
    assert told["leaves"] == Ending(
        "exited", "it exited with code 1", Blame("leaves.log", lines["leaves"], "no licence")
    )
    assert told["raises"] == Ending(
        "exited",
        "it exited with code 1",
        Blame("raises.log", lines["raises"], "ValueError: no luck"),
    )
    assert told["ended"] == Ending("exited", "it exited with code 0")
    assert told["killed"] == Ending("killed", "it was killed by signal 9 (SIGKILL)")
    crashed = told["crashes"]
    assert crashed
    assert (crashed.cause, crashed.message) == ("killed", "it was killed by signal 11 (SIGSEGV)")
    assert crashed.gist.startswith("Fatal Python error: Segmentation fault (it was killed by")


def test_what_we_ended_is_said_to_be_that_and_no_line_of_it_or_of_another_is_to_blame(
    world: World,
) -> None:
    layout = world.layout
    world.start({"app": RAISES})
    until(lambda: world.given_up("app"), 60, "PM2 to give up")
    failed = endings.settled(layout, "app", None)
    assert failed
    assert failed.gist == "ValueError: no luck (it exited with code 1)"
    before = world.last("app")
    world.start({"app": WAITS})
    first = world.next("app", before)
    assert endings.last(layout, "app", first) == failed

    assert pm2.restart(layout, "app", first, "it hangs")
    second = world.next("app", first)
    watched = endings.of(layout, "app", first)
    assert watched == Ending("stopped", "ended by the watcher: it hangs")

    os.kill(second, signal.SIGKILL)
    third = world.next("app", second)
    killed = endings.settled(layout, "app", second)
    assert killed == Ending("killed", "it was killed by signal 9 (SIGKILL)")
    assert endings.last(layout, "app", third) == killed

    world.start({"app": WAITS})
    fourth = world.next("app", third)
    replaced = endings.of(layout, "app", third)
    assert replaced == Ending("stopped", "stopped by doit, which started it anew")
    assert "app" not in stops.read(layout.stopped).names

    pm2.delete(layout, {"app"}, "down")
    assert not psutil.pid_exists(fourth)
    assert endings.last(layout, "app") == Ending("stopped", "stopped by doit down")
    assert stops.read(layout.stopped).names == {"app"}


def test_without_pm2_its_end_is_not_known_and_the_log_is_all_there_is(world: World) -> None:
    log = world.layout.log("app")
    assert endings.last(world.layout, "app") is None
    log.write_text("Traceback (most recent call last):\n  File\nValueError: no luck\n")
    found = endings.last(world.layout, "app")
    assert str(found) == "it ended: app.log:3: ValueError: no luck"


@pytest.mark.parametrize("text", ["", "[]", '{"starts": 5}', '{"starts": [{"pid": 1}]}', "\0"])
def test_a_damaged_record_is_none(world: World, text: str) -> None:
    files.write_text(world.layout.starts("app"), text)
    files.write_text(world.layout.stopped, text)
    assert process_starts.read(world.layout, "app") == []
    assert stops.read(world.layout.stopped) == stops.Stops()
    assert endings.last(world.layout, "app") is None


def test_a_record_that_is_in_the_way_is_made_anew(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    process_starts.note(tmp_path, "app")
    assert not layout.machine.exists(), "the workspace was removed"
    layout.state.mkdir(parents=True)
    files.write_text(layout.starts("app").parent, "in the way")
    process_starts.note(tmp_path, "app")
    files.remove(layout.starts("app"))
    layout.starts("app").mkdir()
    for _ in range(process_starts.KEPT + 1):
        process_starts.note(tmp_path, "app")
    found = process_starts.read(layout, "app")
    assert [each.pid for each in found] == [os.getpid()] * process_starts.KEPT
    assert all(each.runs for each in found)


def test_exits_are_read_from_the_end_of_a_long_log_of_pm2(tmp_path: Path) -> None:
    at = "2026-11-29T08:26:26: PM2 log: App "
    ended = at + "[{}:3] exited with code [{}] via signal [{}]\n"
    start = at + "[{}:3] starting in -fork mode-\n"
    exits.log_of(tmp_path).write_text(
        ended.format("old", 1, "SIGINT") + f"{at}[a:3] online\n" * 40_000
        + ended.format("a", 0, "SIGKILL") + start.format("b-gpu0") + start.format("a")
        + ended.format("b-gpu0", 3, "SIGINT") + start.format("a") + ended.format("a", 0, "SIGINT")
        + start.format("a")
    )  # fmt: skip
    assert exits.read(tmp_path) == {
        "a": [exits.Exit(0, "SIGKILL"), None, exits.Exit(0, None), None],
        "b-gpu0": [exits.Exit(3, None)],
    }
    assert exits.read(tmp_path / "nowhere") == {}


def test_the_kernels_counter_of_the_oom_killer_is_found_and_its_growth_is_told(
    world: World, tmp_path: Path
) -> None:
    found = out_of_memory.counter()
    assert not found.file or out_of_memory.count(found.file) == found.killed
    counts = tmp_path / "memory.events"
    counts.write_text("low 0\nhigh 0\nmax 9\noom 3\noom_kill 2\noom_group_kill 0\n")
    start = process_starts.Start(1, "1.1", 0.0, 0, 0, str(counts), 2)
    assert endings._killed(start, "it was killed").cause == "killed"
    counts.write_text("oom 4\noom_kill 3\n")
    told = endings._killed(start, "it was killed by signal 9 (SIGKILL)")
    assert told.cause == "out of memory"
    assert "the kernel's OOM killer was at work in its cgroup" in told.message
