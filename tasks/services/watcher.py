"""Watches the instances, restarts those that are not well, and rotates logs.

`python -m tasks.services.watcher FILE`: FILE holds the settings, and is all it knows. Each
instance has a thread of its own, so that none waits for another; what is wrong with one is in
its watch.json while it is, and the last restart after it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from ..host.comfyui import api, health_client, symptoms
from ..host.comfyui.api import Health, Jobs
from ..host.pm2 import apps, log_rotation, pm2
from ..host.pm2.app_processes import Census
from ..host.system import files, usage
from ..host.system.failure import Failure
from ..host.system.run_lock import RunLock
from ..spec.layout import Layout

SPARE = 5
"""Only at every so many looks is it asked for its jobs, with all their prompts, and measured."""
AGAIN = 30.0
"""Seconds until a restart that PM2 did not do is tried again."""


@dataclass(frozen=True)
class Watched:
    """An instance."""

    gpu: int
    name: str
    listen: str


@dataclass(frozen=True)
class Settings:
    """What the settings file says; times in seconds."""

    workspace: Path
    instances: tuple[Watched, ...]
    server: dict[str, Any] | None
    """Where the health server listens, if there is to be one."""
    rules: symptoms.Rules
    logs: log_rotation.Rules
    restart: bool
    every: float

    @property
    def layout(self) -> Layout:
        return Layout(self.workspace)


def read(file: Path) -> Settings:
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return Settings(
        workspace=Path(found["workspace"]),
        instances=tuple(Watched(**each) for each in found["instances"]),
        server=found["server"],
        rules=symptoms.Rules(**found["rules"]),
        logs=log_rotation.Rules(**found["logs"]),
        restart=found["restart"],
        every=found["every"],
    )


class Watch:
    """One instance: looks at it, says what is wrong, restarts it."""

    def __init__(self, settings: Settings, instance: Watched, census: Census) -> None:
        self._settings = settings
        self._instance = instance
        self._census = census
        self._file = settings.layout.watched(instance.gpu)
        self._written = files.read_receipt(self._file)
        self._process: psutil.Process | None = None
        self._port, self._scheme = 0, "http"
        self._story = symptoms.Story()
        self._looks = 0
        self._finding: dict[str, Any] = {}
        self._try = 0.0
        self._helpers: dict[int, psutil.Process] = {}

    def step(self) -> None:
        found = self._census.find(self._instance.name)
        process = found.process if found else None
        if process != self._process:
            self._end_helpers()
            self._process, self._port = process, (found.app.port or 0) if found else 0
            self._scheme = found.app.scheme if found else "http"
            self._story, self._looks, self._try = symptoms.Story(self._passed()), 0, 0.0
        if process is None:
            self._note(0, None)
            return
        self._note_helpers(process.pid)
        if not self._draining():
            look = self._look(process)
            self._story, reason = symptoms.judge(self._story, look, self._settings.rules)
            self._note(process.pid, reason)
            if reason and self._settings.restart and time.monotonic() >= self._try:
                self._restart(process.pid, reason)

    def _note_helpers(self, pid: int) -> None:
        """Know what it started, to end that with it: nothing else may tell whose that was."""
        pids = usage.family(pid)[1:]
        for gone in self._helpers.keys() - pids:
            del self._helpers[gone]
        for new in set(pids) - self._helpers.keys():
            with suppress(psutil.Error):
                self._helpers[new] = psutil.Process(new)

    def _end_helpers(self) -> None:
        if left := [each for each in self._helpers.values() if apps.runs(each)]:
            apps.end_all(left)
            pids = ", ".join(str(each.pid) for each in left)
            say(f"{self._instance.name} had left processes behind, they were ended: {pids}")
        self._helpers = {}

    def _passed(self) -> bool:
        """It has been healthy already: that process went through the gate of a run."""
        passed = files.read_receipt(self._settings.layout.healthy(self._instance.gpu))
        return self._process is not None and passed.get("pid") == self._process.pid

    def _draining(self) -> bool:
        """A run lets its job end, and restarts it itself."""
        mark = self._settings.layout.draining(self._instance.gpu)
        if not mark.exists() or RunLock(self._settings.workspace).holder() is not None:
            return mark.exists()
        # Of a run that was killed: it is not to keep workers away for ever.
        files.remove(mark)
        say(f"{self._instance.name} was still marked as draining, and no run is on")
        return False

    def _look(self, process: psutil.Process) -> symptoms.Look:
        turn = self._looks % SPARE == 0
        self._looks += 1
        health = api.probe(self._instance.listen, self._port, scheme=self._scheme)
        jobs = self._jobs(health, turn)
        none_runs = (jobs and jobs.waiting and not jobs.running) or self._story.untaken is not None
        return symptoms.Look(
            at=time.monotonic(),
            age=time.time() - process.create_time(),
            answered=health.answered,
            effort=usage.effort(process.pid) if none_runs or not health.answered else None,
            jobs=jobs,
            memory=usage.own_memory(process.pid) if turn and self._settings.rules.memory else None,
        )

    def _jobs(self, health: Health, turn: bool) -> Jobs | None:
        if health.queue == 0:
            return Jobs()
        if health.queue is None or not (turn or self._settings.rules.job_timeout < 60):
            return None
        return api.jobs(self._instance.listen, self._port, scheme=self._scheme)

    def _note(self, pid: int, reason: str | None) -> None:
        """Write down what is wrong, once; what was restarted before stays."""
        known = self._finding.get("pid") == pid and self._finding.get("reason") == reason
        if reason and not known:
            self._finding = {"pid": pid, "reason": reason, "since": time.time()}
            say(f"{self._instance.name} (pid {pid}): {reason}")
        elif not reason:
            self._finding = {}
        past = {key: self._written[key] for key in ("restarted", "at") if key in self._written}
        self._write(past | self._finding)

    def _write(self, content: dict[str, Any]) -> None:
        if content == self._written:
            return
        if not self._file.parent.is_dir():
            # Whoever removed a whole workspace doesn't want a part of it back.
            return
        if content:
            files.write_receipt(self._file, content)
        else:
            files.remove(self._file)
        self._written = content

    def _restart(self, pid: int, reason: str) -> None:
        self._try = time.monotonic() + AGAIN
        if pm2.restart(self._settings.layout, self._instance.name, pid):
            say(f"{self._instance.name} (pid {pid}) was restarted: {reason}")
            self._finding = {}
            self._write({"restarted": reason, "at": time.time()})
        else:
            say(f"{self._instance.name} (pid {pid}) is not PM2's: nobody can restart it")


class ServerWatch:
    """The health server: restarts it when it says for too long that it isn't well, or nothing."""

    def __init__(self, settings: Settings, census: Census) -> None:
        self._settings = settings
        self._census = census
        self._pid = 0
        self._since = 0.0

    def step(self) -> None:
        found, server, now = self._census.find(apps.SERVER), self._settings.server, time.monotonic()
        pid = found.app.pid if found else 0
        if server is None or pid != self._pid:
            self._pid, self._since = pid, now
        if server is None or not pid:
            return
        asked = health_client.Server(self._settings.workspace, token=None, **server)
        answer = health_client.ask(asked, "/livez", api.PROBE_TIMEOUT)
        if answer and answer[0] == 200:
            self._since = now
        elif now - self._since >= self._settings.rules.hung:
            self._since = now
            if pm2.restart(self._settings.layout, apps.SERVER, pid):
                say(f"{apps.SERVER} (pid {pid}) was restarted: it gave no good answer for "
                    f"{self._settings.rules.hung:g} s")  # fmt: skip


def say(text: str) -> None:
    # Nobody listens any more when PM2's daemon was killed.
    with suppress(OSError):
        print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}", flush=True)


def _for_ever(what: str, step: Callable[[], None], every: float) -> None:
    """Whatever goes wrong is said, once, and tried again."""
    said = ""
    while True:
        try:
            step()
            said = ""
        except Exception as error:
            text = str(error) if isinstance(error, Failure) else f"{type(error).__name__}: {error}"
            if text != said:
                say(f"{what}: {text}")
            said = text
        time.sleep(every)


def _rotate(settings: Settings) -> None:
    log_rotation.mend(settings.layout)
    for name in log_rotation.rotate(settings.layout, settings.logs):
        say(f"{name} was rotated")


def main(file: Path) -> None:
    settings = read(file)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    census = Census(settings.workspace, settings.every)
    work: list[tuple[str, Callable[[], None]]] = [("logs", lambda: _rotate(settings))]
    for instance in settings.instances:
        work.append((instance.name, Watch(settings, instance, census).step))
    work.append((apps.SERVER, ServerWatch(settings, census).step))
    for what, step in work:
        # Daemons: a restart that takes its time doesn't keep this process from ending.
        arguments = (what, step, settings.every)
        threading.Thread(target=_for_ever, args=arguments, daemon=True).start()
    files.write_receipt(file.with_suffix(".ready.json"), {"pid": os.getpid()})
    stop.wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
