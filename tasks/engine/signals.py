"""Signals end a run or a command cleanly: children end first, no traceback, exit code 128+n."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

from ..host.system import process
from ..host.system.program_files import PROGRAM

ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SHOW_CURSOR = b"\x1b[?25h"
RESEND_EVERY = 0.05
"""Seconds between two attempts to wake the main thread."""
_received: list[int] = []
_endings: list[Callable[[], object]] = []


def install_handlers() -> None:
    """Install the handlers; this also undoes an inherited "ignore", which children would get."""
    if signal.getsignal(signal.SIGTERM) is _end_process:
        return
    for number in ENDING_SIGNALS:
        signal.signal(number, _end_process)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_resend, args=(reader,), daemon=True).start()


def received() -> bool:
    """Whether a signal is ending this process."""
    return bool(_received)


@contextlib.contextmanager
def ending() -> Iterator[None]:
    """End with the signal's code also where a library made another exception of what the handler
    raised, or caught it: pydantic_core does, while it builds a model."""
    try:
        yield
    except Exception:
        if not _received:
            raise
    if _received:
        raise SystemExit(128 + _received[0])


def at_the_end(ending: Callable[[], object]) -> None:
    """Call `ending` once a signal ends this process, before that is printed."""
    if ending not in _endings:
        _endings.append(ending)


def _resend(reader: int) -> None:
    """Send a signal again until the main thread has handled it.

    Python's handlers run between bytecodes of the main thread. A signal that arrives just before
    that thread waits for a lock (the result of a task) would be handled after the wait, minutes
    later (45 of 750 runs on a loaded machine).
    """
    number = os.read(reader, 1)[0]
    while not _received:
        time.sleep(RESEND_EVERY)
        signal.pthread_kill(threading.main_thread().ident or 0, number)


def _end_process(number: int, frame: FrameType | None) -> None:
    for again in ENDING_SIGNALS:
        signal.signal(again, signal.SIG_IGN)
    _received.append(number)
    process.end_for_good()
    for ending in _endings:
        with contextlib.suppress(Exception):
            ending()
    _show_cursor()
    atexit.register(_show_cursor)
    print(
        f"stopped by {signal.Signals(number).name}; run {PROGRAM} again to continue",
        file=sys.stderr,
    )
    raise SystemExit(128 + number)


def _show_cursor() -> None:
    """Bars hide it."""
    with contextlib.suppress(OSError, ValueError):
        if sys.stdout.isatty():
            os.write(sys.stdout.fileno(), SHOW_CURSOR)
