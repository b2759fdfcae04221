"""Real PM2: what an app gets, exactly, and what PM2 never gets to see."""

from __future__ import annotations

import json
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from comfy_machine.host.pm2 import apps, pm2
from comfy_machine.host.system import files, private_folder, templates
from comfy_machine.host.system.failure import Failure
from comfy_machine.spec.layout import Layout
from tests.conftest import link_supervisor
from tests.contract.client import until

SHIM = Path(pm2.__file__).parents[2] / "services" / "shim.py"
CANARY = "canary-7f3a"

# writes down what it got, then lives until it is interrupted
REPORT = """
import json, os, signal, sys
signal.signal(signal.SIGINT, lambda *_: sys.exit(0))
part = sys.argv[1] + ".part"
with open(part, "w") as file:
    json.dump([os.getpid(), sys.argv[2:], dict(os.environ)], file)
os.replace(part, sys.argv[1])
while True:
    signal.pause()
"""


# ends well when all others are told to end while it ends
TOGETHER = """
import pathlib, signal, sys, time
def end(*_):
    (here / sys.argv[1]).touch()
    while len(list(here.glob("told-*"))) < 3:
        time.sleep(0.02)
    (here / f"well-{sys.argv[1]}").touch()
    sys.exit(0)
here = pathlib.Path(sys.argv[2])
signal.signal(signal.SIGINT, end)
(here / f"up-{sys.argv[1]}").touch()
while True:
    signal.pause()
"""


@dataclass
class World:
    """A workspace with PM2 in it."""

    layout: Layout

    def start(
        self, name: str, arguments: list[str], env: dict[str, str], prefix: list[str] | None = None
    ) -> tuple[int, list[str], dict[str, str]]:
        """Start the reporting app; what it says of its pid, arguments and environment."""
        seen = self.layout.workspace / f"{name}.seen"
        seen.unlink(missing_ok=True)
        script = self.layout.workspace / "report.py"
        script.write_text(REPORT)
        marks = {apps.WORKSPACE: str(self.layout.workspace), apps.NAME: name}
        app = {
            "name": name,
            "cwd": str(self.layout.workspace),
            "command": [*(prefix or []), sys.executable, str(script), str(seen), *arguments],
            "env": {**env, **marks},
            "log": str(self.layout.logs / f"{name}.log"),
            "secrets": {},
        }
        rendered = json.loads(templates.render("instance.config.json.j2", apps=[app]))
        pm2.start(self.layout, rendered["apps"])
        until(seen.exists, 30, "the app to say what it got")
        pid, got, environ = json.loads(seen.read_text())
        return pid, got, environ

    def pm2_knows(self) -> str:
        """All that PM2 shows and keeps: jlist, its dump, its logs, the daemon's environment."""
        daemon = pm2.daemon(self.layout)
        assert daemon is not None
        pm2._call(self.layout, "save", "--force")
        home = private_folder.folder(self.layout.workspace)
        kept = [path.read_text(errors="replace") for path in home.rglob("*") if path.is_file()]
        assert any('"pm_exec_path"' in text for text in kept), "the dump is among them"
        return "\n".join(
            [json.dumps(pm2.apps(self.layout)), str(psutil.Process(daemon).environ()), *kept]
        )


@pytest.fixture
def world(tmp_path: Path, supervisor: Path) -> Iterator[World]:
    layout = Layout(tmp_path / "ws")
    link_supervisor(supervisor, layout)
    layout.logs.mkdir()
    yield World(layout)
    pm2.kill(layout)
    assert pm2.daemon(layout) is None
    assert apps.running(layout.workspace, None) == []
    files.remove(private_folder.folder(layout.workspace))


def test_a_damaged_pm2_ends_nothing_that_runs(world: World) -> None:
    pid, _, _ = world.start("app", [], {})
    own = pm2.folder(world.layout)
    installed = own.resolve()
    own.unlink()
    shutil.copytree(installed, own, symlinks=True)
    pm2.script(world.layout).write_text("")
    with pytest.raises(Failure, match="doit repair"):
        world.start("app", [], {})
    assert psutil.pid_exists(pid)
    pm2.script(world.layout).write_bytes((installed / "node_modules/pm2/bin/pm2").read_bytes())
    assert world.start("app", [], {})[0] != pid


HOSTILE = [
    "plain", "", "two words", " edges ", """'single' "double" `back`""", "back\\slash\\n",
    "${HOME} $HOME $(id) %PATH% *", "üñí 漢字 🚀 \u2028", "--flag=x y", "line\nbreak\ttab", "{}",
    "a;b|c&d>e", "# no comment", "null",
]  # fmt: skip


def test_arguments_and_variables_arrive_exactly_and_the_callers_environment_nowhere(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", CANARY)
    monkeypatch.setenv("PM2_SOMETHING", CANARY)
    monkeypatch.setenv("GIT_SSH_COMMAND", CANARY)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", CANARY)
    variables = {f"HOSTILE_{number}": value for number, value in enumerate(HOSTILE)}
    pid, arguments, environ = world.start("exact", HOSTILE, variables)

    assert arguments == HOSTILE
    assert {key: environ.get(key) for key in variables} == variables
    assert CANARY not in str(environ)
    assert CANARY not in world.pm2_knows()
    (app,) = apps.running(world.layout.workspace, pm2.daemon(world.layout))
    assert (app.name, app.pid, app.supervised) == ("exact", pid, True)
    assert pm2.apps(world.layout)["exact"]["pid"] == pid
    assert environ["HOME"] == os.environ["HOME"], "the allowlist does arrive"

    # a second start replaces the first, with what left its config really gone
    again, arguments, environ = world.start("exact", ["one"], {"OTHER": "x"})
    assert again != pid
    assert not psutil.pid_exists(pid)
    assert arguments == ["one"]
    assert "HOSTILE_0" not in environ
    pm2.delete(world.layout, {"exact", "never-there"}, "removed")
    assert pm2.apps(world.layout) == {}
    assert not psutil.pid_exists(again)


def test_a_secret_reaches_the_app_alone_and_its_pid_is_the_one_pm2_knows(world: World) -> None:
    file = world.layout.secrets / "app.json"
    files.write_text(file, json.dumps({"TOKEN": CANARY, "ODD": "a b'\"ü"}), mode=0o600)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    prefix = [sys.executable, "-I", str(SHIM), "--env", str(file), "--"]
    pid, arguments, environ = world.start("hidden", ["a b"], {"PLAIN": "x"}, prefix)

    assert environ["TOKEN"] == CANARY
    assert environ["ODD"] == "a b'\"ü"
    assert environ["PLAIN"] == "x"
    assert arguments == ["a b"]
    assert pm2.apps(world.layout)["hidden"]["pid"] == pid
    assert CANARY not in " ".join(psutil.Process(pid).cmdline())
    assert str(SHIM) not in psutil.Process(pid).cmdline(), "the shim is gone"
    assert CANARY not in world.pm2_knows()


def test_an_app_is_restarted_only_while_it_is_the_process_that_was_meant(world: World) -> None:
    pid, _, _ = world.start("app", ["one"], {"PLAIN": "x"})
    assert not pm2.restart(world.layout, "app", pid + 1, "x")
    assert not pm2.restart(world.layout, "other", pid, "x")
    assert pm2.apps(world.layout)["app"]["pid"] == pid
    assert pm2.restart(world.layout, "app", pid, "x")
    app = pm2.apps(world.layout)["app"]
    assert app["pid"] != pid
    assert app["pm2_env"]["restart_time"] == 1
    until(lambda: psutil.Process(app["pid"]).environ().get("PLAIN") == "x", 30, "the app")


def test_without_a_daemon_there_are_no_apps_and_nothing_to_stop(
    tmp_path: Path,
) -> None:
    layout = Layout(tmp_path)
    assert pm2.daemon(layout) is None
    assert pm2.apps(layout) == {}
    pm2.delete(layout, {"comfyui-gpu0"}, "down")
    assert not pm2.restart(layout, "comfyui-gpu0", 1, "x")
    pm2.reopen_logs(layout)
    pm2.kill(layout)
    assert pm2.daemon(layout) is None
    files.remove(private_folder.folder(tmp_path))


def test_a_pid_file_that_names_a_stranger_is_no_daemon(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    (private_folder.make(tmp_path) / "pm2.pid").write_text(str(os.getpid()))
    assert pm2.daemon(layout) is None
    files.remove(private_folder.folder(tmp_path))


def test_what_is_deleted_together_ends_together(world: World, tmp_path: Path) -> None:
    names = [f"told-{number}" for number in range(3)]
    pm2.start(
        world.layout,
        [
            {"name": name, "script": sys.executable, "interpreter": "none", "kill_timeout": 10000,
             "out_file": str(tmp_path / f"{name}.log"),
             "args": ["-c", TOGETHER, name, str(tmp_path)]}
            for name in names
        ],
    )  # fmt: skip
    until(lambda: len(list(tmp_path.glob("up-*"))) == 3, 30, "all of them")
    pm2.delete(world.layout, set(names), "down")
    assert len(list(tmp_path.glob("well-*"))) == 3
    assert pm2.apps(world.layout) == {}
