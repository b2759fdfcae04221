"""The first process of a container: `python container.py [--once] [COMMAND [ARG …]]`.

It runs `doit up` until that succeeds, prints the output of doit and the apps, and reaps orphaned
processes. When PM2 dies, other than by `doit down`, it runs `doit up` again. On SIGTERM it ends the
workers, then everything else, within the container's grace period. `doit up` starts the health
server first, and PM2 keeps it running when `doit up` fails. With a COMMAND it execs that command.

STOP_GRACE_PERIOD is the grace period in seconds, by default 10 as in Docker.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from ..host.generations import image_volumes
from ..host.pm2 import apps, log_stream, pm2, shutdown
from ..host.system import private_folder, program_files
from ..host.system.failure import Failure
from ..host.system.program_files import PROGRAM
from ..host.system.run_lock import RunLock
from ..spec import SpecError, load
from ..spec.layout import Layout
from .boot import FIRST, LONGEST

GRACE = 10.0
"""Seconds that Docker gives a container to stop."""
MARGIN = 1.0
"""Seconds before the end of the grace period at which this process stops waiting."""
END_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
PR_SET_CHILD_SUBREAPER = 36
"""From linux/prctl.h."""
USAGE_ERROR = 3
"""doit's exit code for a wrong command or machine file: trying again is no use."""


class FirstProcess:
    """Runs doit and lives until it is told to end."""

    def __init__(self, layout: Layout, *, once: bool, grace: float) -> None:
        self._layout = layout
        self._once = once
        self._grace = grace
        self._doit: int | None = None
        self._daemon: int | None = None
        self._wait = FIRST
        self._again: float | None = None
        """When to run doit again, by the monotonic clock."""

    def run(self) -> int:
        """The exit code: 0 after a signal, if everything ended in time."""
        # PM2's daemon must become a child of this process even if another process is pid 1:
        # docker-init or, with --pid=host, the host's.
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        # sigtimedwait below takes them; a handler could run at any point.
        signal.pthread_sigmask(signal.SIG_BLOCK, {*END_SIGNALS, signal.SIGCHLD})
        stream = log_stream.LogStream(self._layout)
        stream.start()
        self._up()
        try:
            code = self._live()
            return self._end() or code
        finally:
            stream.stop()

    def _live(self) -> int:
        while True:
            pause = self._pause()
            received = signal.sigtimedwait({*END_SIGNALS, signal.SIGCHLD}, pause)
            if received and received.si_signo in END_SIGNALS:
                return 0
            for pid, code in _ended_children():
                if pid == self._doit:
                    self._doit = None
                    if code and (self._once or code == USAGE_ERROR):
                        return code
                    self._judge(code)
                elif pid == self._daemon and self._doit is None:
                    self._without_pm2()
            if self._again is not None and time.monotonic() >= self._again:
                self._up()
            if self._doit is self._daemon is self._again is None:
                # The daemon of a `doit up` that somebody ran by hand.
                self._daemon = pm2.daemon(self._layout)

    def _pause(self) -> float:
        """Seconds to wait for a signal."""
        if self._again is not None:
            return max(0.0, self._again - time.monotonic())
        return 2.0 if self._doit is self._daemon is None else 60.0

    def _without_pm2(self) -> None:
        """Without PM2 nothing restarts an instance: run doit, unless `doit down` stopped it."""
        lock = RunLock(self._layout.workspace)
        run = lock.run()
        # `doit down` removes the lock file at its end.
        if (run and run.task == "down") or not lock.path.exists():
            self._daemon = None
            say(f"{PROGRAM} down has stopped the machine; {PROGRAM} up starts it again")
            return
        say(f"PM2 has ended; running {PROGRAM} up again")
        self._up()

    def _up(self) -> None:
        self._again, self._daemon = None, None
        doit = str(program_files.program_file())
        self._doit = os.posix_spawn(doit, [doit, "up"], os.environ, setsigmask=())

    def _judge(self, code: int) -> None:
        """After a run: done, or try again later."""
        self._daemon = pm2.daemon(self._layout)
        running = apps.running(self._layout.workspace, self._daemon)
        orphans = [app.name for app in running if not app.supervised]
        if code == 0 and not orphans:
            self._wait = FIRST
            return
        # PM2 may have been restarted during that run.
        why = (
            f"PM2 has lost {', '.join(orphans)}"
            if code == 0
            else f"{PROGRAM} ended with code {code}"
        )
        say(f"{why}; trying again in {self._wait:g} s")
        self._again = time.monotonic() + self._wait
        self._wait = min(2 * self._wait, LONGEST)

    def _end(self) -> int:
        """End everything; 1 when that failed."""
        for seconds, what in (
            (self._grace / 2, self._insist),
            (max(self._grace - MARGIN, self._grace / 2), self._give_up),
        ):
            timer = threading.Timer(seconds, what)
            timer.daemon = True
            timer.start()
        if self._doit is not None:
            os.kill(self._doit, signal.SIGTERM)
            os.waitpid(self._doit, 0)
        try:
            shutdown.end_all(self._layout, "container")
        except Failure as failure:
            say(str(failure))
            return 1
        return 0

    def _insist(self) -> None:
        """Kill workers that took half of the grace period; instances get the other half, and what
        keeps the jobs ends after them."""
        for app in apps.running(self._layout.workspace, None):
            if not apps.is_instance(app.name) and app.name != apps.JOBS_SERVER:
                say(f"{app.name} (pid {app.pid}) doesn't end: killing it")
                with contextlib.suppress(ProcessLookupError):
                    os.kill(app.pid, signal.SIGKILL)

    def _give_up(self) -> None:
        left = ", ".join(app.name for app in apps.running(self._layout.workspace, None))
        say(f"not stopped within {self._grace:g} s; killed: {left or 'PM2'}")
        os._exit(1)


def say(line: str) -> None:
    print(line, flush=True)


def _ended_children() -> Iterator[tuple[int, int]]:
    """Children, adopted ones included, that have ended: pid and exit code (128+n by a signal)."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        code = os.waitstatus_to_exitcode(status)
        yield pid, code if code >= 0 else 128 - code


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="the first process of a container")
    parser.add_argument("--once", action="store_true", help=f"end when `{PROGRAM} up` fails")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="exec this instead")
    options = parser.parse_args(arguments)
    if options.command:
        return _exec(options.command)
    try:
        grace = float(os.environ.get("STOP_GRACE_PERIOD") or GRACE)
        if not 0 < grace < math.inf:
            raise ValueError
        machine = load(Path(os.environ.get("MACHINE") or "machine.yaml"), os.environ)
    except ValueError:
        say("STOP_GRACE_PERIOD: write a number of seconds")
        return USAGE_ERROR
    except SpecError as error:
        say(str(error))
        return USAGE_ERROR
    if problem := _prepare_folders(machine.layout):
        say(problem)
        return 1
    return FirstProcess(machine.layout, once=options.once, grace=grace).run()


def _exec(command: list[str]) -> int:
    """Replace this process; the exit code, as shells have it, if the command can't be run."""
    try:
        os.execvp(command[0], command)
    except OSError as error:
        say(f"{command[0]}: {error.strerror}")
        return 127


def _prepare_folders(layout: Layout) -> str | None:
    """Prepare the folders that are written to; return what is wrong with them, or None."""
    try:
        if not image_volumes.claim(layout):
            return f"another container has {layout.state}: give each a volume of its own"
        image_volumes.settle(layout)
        private_folder.make(layout.workspace)
    except OSError as error:
        advice = f"mount {layout.state} for uid {os.getuid()}"
        return f"{error.filename}: {error.strerror}; {advice}"
    except Failure as failure:
        return str(failure)
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
