"""A signal ends a run at once, whatever the main thread waits for."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
import sys

import pytest

from comfy_machine.engine import signals
from comfy_machine.host.system import process
from tests.rig import PROJECT

HIDE_CURSOR = b"\x1b[?25l"

#: The kernel may hand a signal to any thread; the main one then goes on waiting.
SCRIPT = """
import queue, signal, threading
from comfy_machine.engine import signals

signals.install_handlers()
signals.install_handlers()
waits = threading.Event()


def work():
    waits.wait()
    signal.pthread_kill(threading.get_ident(), signal.{name})
    threading.Event().wait()


class Waiting(queue.Queue):
    def _qsize(self):
        waits.set()
        return super()._qsize()


threading.Thread(target=work, daemon=True).start()
Waiting().get()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_does_not_wake_the_main_thread_ends_it_all_the_same(
    number: signal.Signals,
) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(name=number.name)],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert ended.returncode == 128 + number
    assert ended.stderr == f"stopped by {number.name}; run doit again to continue\n"


#: Each thread answers the end of its command with another one, as an installation without a cache.
STUBBORN = """
import os, sys, threading
from comfy_machine.engine import signals
from comfy_machine.host.system import process

signals.install_handlers()


def work():
    while True:
        try:
            process.run(["sleep", "300"], env={"PATH": os.environ["PATH"]})
        except process.CommandFailed as failed:
            print("blamed:", failed, flush=True)


for _ in range(4):
    threading.Thread(target=work).start()
while len(process.psutil_children()) < 4:
    pass
print(process.run_id(), flush=True)
threading.Event().wait()
"""


def test_no_thread_starts_another_command_or_blames_one_after_a_signal() -> None:
    children = "__import__('psutil').Process().children"
    script = STUBBORN.replace("process.psutil_children", children)
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=PROJECT, stdout=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout
        run_id = run.stdout.readline().strip()
        run.terminate()
        try:
            assert run.wait(30) == 128 + signal.SIGTERM
            assert run.stdout.read() == "", "what we ended is no fault of its own"
        finally:
            run.kill()
            left = process.end_left_by(run_id)
    assert left == 0


def test_the_cursor_comes_back() -> None:
    main, terminal = pty.openpty()
    script = """
import threading
from comfy_machine.engine import signals
from comfy_machine.engine.progress_board import Board
from comfy_machine.host.system.progress import Progress

signals.install_handlers()


def work():
    with Board().following(Progress("models")):
        threading.Event().wait()


threading.Thread(target=work, daemon=True).start()
threading.Event().wait()
"""
    with subprocess.Popen([sys.executable, "-c", script], cwd=PROJECT, stdout=terminal) as run:
        try:
            os.close(terminal)
            printed = b""
            while HIDE_CURSOR not in printed:
                printed += os.read(main, 4096)
            run.terminate()
            with contextlib.suppress(OSError):
                while chunk := os.read(main, 4096):
                    printed += chunk
        finally:
            run.kill()
            os.close(main)
    assert printed.rindex(signals.SHOW_CURSOR) > printed.rindex(HIDE_CURSOR)


@pytest.mark.parametrize("caught", ["raise ValueError('a validator failed')", "pass"])
def test_a_library_that_catches_what_ends_the_process_changes_nothing(caught: str) -> None:
    script = f"""
import os, signal
from comfy_machine.engine import signals

signals.install_handlers()
with signals.ending():
    try:
        os.kill(os.getpid(), signal.SIGINT)
        signal.pause()
    except BaseException:
        {caught}
"""
    ended = subprocess.run(
        [sys.executable, "-c", script], cwd=PROJECT, capture_output=True, text=True, timeout=30
    )
    assert ended.returncode == 128 + signal.SIGINT
    assert ended.stderr == "stopped by SIGINT; run doit again to continue\n"
