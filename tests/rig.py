"""A machine in tmp: its machine.yaml, and doit run on it as a person would."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml

from comfy_machine import server
from comfy_machine.engine.run import Run
from comfy_machine.host.comfyui.api import Client, probe
from comfy_machine.host.downloads import model_files
from comfy_machine.host.pm2 import apps, pm2
from comfy_machine.host.storage import garbage
from comfy_machine.host.system import private_folder
from comfy_machine.host.system.run_lock import RunLock
from comfy_machine.spec import load
from comfy_machine.spec.layout import Layout
from tests import starter

PROJECT = Path(__file__).parents[1]
SIMULATOR = PROJECT / "examples" / "simulation" / "comfyui"
DOIT = Path(sys.executable).parent / "doit"


@dataclass(frozen=True)
class Ended:
    """How one doit call ended."""

    code: int
    output: str

    @property
    def executed(self) -> set[str]:
        """The tasks that did something and succeeded."""
        return set(re.findall(r"^✓ (\S+) +[\d.]+ s$", self.output, re.M))

    @property
    def planned(self) -> set[str]:
        """The tasks that a plan would execute."""
        return set(re.findall(r"^~ (\S+): ", self.output, re.M))

    @property
    def moves(self) -> set[str]:
        """What was or would be added, removed or moved, in its own words."""
        return set(re.findall(r"^ +([+-] \S+ \S+|\S+ \S+ → \S+)", self.output, re.M))

    @property
    def failed(self) -> set[str]:
        return set(re.findall(r"^✗ (\S+) +[\d.]+ s$", self.output, re.M))


@dataclass
class Rig:
    """One machine file and its workspace. `spec` is written to machine.yaml before every run."""

    folder: Path
    spec: dict[str, Any]
    env: dict[str, str] = field(default_factory=dict)
    program: tuple[str, ...] = (str(DOIT),)
    project: Path = PROJECT
    """The folder with the dodo.py that the program reads."""

    @property
    def file(self) -> Path:
        return self.folder / "machine.yaml"

    @property
    def lock_file(self) -> Path:
        return self.folder / "machine.lock"

    @property
    def workspace(self) -> Path:
        return self.folder / "ws"

    @property
    def layout(self) -> Layout:
        return Layout(self.workspace)

    @property
    def comfyui(self) -> Path:
        """The current generation's ComfyUI."""
        return self.layout.current.resolve() / "ComfyUI"

    @property
    def environment(self) -> Path:
        return (self.layout.current / "environment").resolve()

    def write(self) -> None:
        """Write machine.yaml, where the spec changed."""
        text = yaml.safe_dump(self.spec, sort_keys=False)
        if not self.file.exists() or self.file.read_text() != text:
            self.file.write_text(text)

    def models(self) -> dict[str, model_files.ModelState]:
        """The declared models as they are now."""
        self.write()
        machine = load(self.file, {})
        folder, store = machine.models.folder, Path(str(machine.models.store))
        place = model_files.Place(self.layout, folder, store, machine.lock.models)
        return model_files.look(place, server.declared_models(Run(machine)))

    def packages(self) -> dict[str, str]:
        """Name → version of what is installed in the current environment."""
        found = {}
        for path in self.environment.glob("lib/python*/site-packages/*.dist-info"):
            name, _, version = path.name.removesuffix(".dist-info").rpartition("-")
            found[name.lower().replace("_", "-")] = version
        return found

    def command(self, *arguments: str) -> list[str]:
        self.write()
        named = any(word.startswith("machine=") for word in arguments)
        return [*self.program, *arguments, *([] if named else [f"machine={self.file}"])]

    def environ(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        return {**os.environ, **self.env, **(extra or {})}

    def doit(self, *arguments: str, code: int | None = 0, **env: str) -> Ended:
        """Run doit to its end; `code` is the exit code to insist on, None for any."""
        words, variables = self.command(*arguments), self.environ(env)
        run = Ended(*starter.run(words, self.project, variables, timeout=150))
        assert code is None or run.code == code, run.output
        return run

    @contextmanager
    def going(self, *arguments: str, **env: str) -> Iterator[subprocess.Popen[str]]:
        """doit while it is on; it is killed when the body ends before it."""
        with subprocess.Popen(
            self.command(*arguments),
            cwd=self.project,
            env=self.environ(env),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as run:
            try:
                yield run
            finally:
                run.kill()

    def running(self) -> dict[str, apps.App]:
        """Instances and workers."""
        return {name: app for name, app in self._marked().items() if name not in apps.OURS}

    def watcher(self) -> apps.App | None:
        return self._marked().get(apps.WATCHER)

    def server(self) -> apps.App | None:
        return self._marked().get(apps.SERVER)

    def _marked(self) -> dict[str, apps.App]:
        return {app.name: app for app in apps.running(self.workspace, None)}

    def port(self, gpu: int = 0) -> int:
        return int(self.spec["instances"]["port_start"]) + gpu

    def client(self, gpu: int = 0, scheme: str = "http") -> Client:
        return Client("127.0.0.1", self.port(gpu), scheme=scheme)

    def healthy(self, gpu: int = 0, scheme: str = "http") -> bool:
        return probe("127.0.0.1", self.port(gpu), scheme=scheme).healthy

    def config(self, gpu: int = 0) -> list[dict[str, Any]]:
        """The apps of a GPU as they were rendered."""
        apps: list[dict[str, Any]] = json.loads(self.layout.rendered(gpu).read_text())["apps"]
        return apps

    def kill_daemon(self) -> None:
        """PM2 dies without a word, and its apps become orphans."""
        daemon = pm2.daemon(self.layout)
        assert daemon
        process = psutil.Process(daemon)
        process.kill()
        assert apps.ends(process, 10)

    def pm2(self, *arguments: str) -> str:
        """What the workspace's own PM2 prints."""
        home = private_folder.folder(self.workspace)
        return subprocess.run(
            [str(pm2.node()), str(pm2.script(self.layout)), "-s", *arguments],
            env={**os.environ, "PM2_HOME": str(home)},
            check=True,
            capture_output=True,
            text=True,
        ).stdout

    def close(self) -> None:
        """End whatever runs, as `doit down` does, and insist that nothing is left."""
        # `doit down` removes the folder, and instances may have been started without doit since.
        if private_folder.folder(self.workspace).exists() or apps.family(self.workspace):
            lock = RunLock(self.workspace)
            lock.take("the end of a test")
            pm2.kill(self.layout)
            for orphan in apps.running(self.workspace, None):
                apps.end(orphan)
            garbage.stop(self.layout)
            lock.give_back()
            left = apps.family(self.workspace)
            shutil.rmtree(private_folder.folder(self.workspace))
            assert not left


def snapshot(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Inode, size and time of every file but bytecode, links not followed."""
    found = {}
    for path in folder.rglob("*"):
        if "__pycache__" not in path.parts:
            try:
                status = path.lstat()
            except FileNotFoundError:
                # What a running app writes has another name for a moment.
                continue
            if not path.is_dir():
                found[str(path)] = (status.st_ino, status.st_size, status.st_mtime_ns)
    return found


def free_ports(number: int) -> int:
    """The first of `number` free ports in a row, in a range of this test process's own."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
    for _ in range(900):
        first = 20000 + worker * 1000 + _taken(number)
        if all(_is_free(port) for port in range(first, first + number)):
            return first
    raise AssertionError("no free ports")


_given = os.getpid() * 50
"""Ports given; where to begin differs, since another suite may run on this machine."""


def _taken(number: int) -> int:
    global _given
    before, _given = _given, _given + number
    return before % 900


def _is_free(port: int) -> bool:
    with socket.socket() as listener:
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
