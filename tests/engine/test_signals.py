"""A signal ends a run at once, whatever the main thread waits for."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from tests.rig import PROJECT

#: The kernel may hand a signal to any thread; the main one then goes on waiting.
SCRIPT = """
import queue, signal, threading
from tasks.engine import signals

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
