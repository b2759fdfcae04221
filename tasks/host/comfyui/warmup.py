"""The warm-up job: a started instance counts as healthy once this job has finished.

What came of it is noted beside the instance with the process that ran it, so a process that PM2
started anew is cold again, whoever asks.
"""

from __future__ import annotations

import time
from pathlib import Path

from ...spec.layout import Layout
from ..pm2.apps import App
from ..system import files, locks, private_folder
from ..system.failure import Failure
from . import api, own_jobs
from .own_jobs import Trial

NOT_YET = "its warm-up job has not finished yet"
SAME = 2.0
"""Seconds by which one process may seem to have started earlier or later: clocks are set."""
AGAIN = 60.0
"""Seconds until one that failed is tried again, while no run is in progress."""


def read(layout: Layout, gpu: int, app: App) -> Trial | None:
    """What came of the warm-up job of this very process; None: nothing yet."""
    told = files.read_receipt(
        layout.warm(gpu), pid=int, started=float, ok=bool, at=float, seconds=float, reason=str
    )
    if not told or told["pid"] != app.pid or abs(told["started"] - app.started) > SAME:
        return None
    return Trial(told["ok"], told["at"], told["seconds"], told["reason"])


def is_warm(layout: Layout, gpu: int, app: App) -> bool:
    known = read(layout, gpu, app)
    return known is not None and known.ok


def is_cold(layout: Layout, gpu: int, app: App) -> bool:
    """Whether it must run its warm-up job before it is healthy for the first time.

    Not so one that has passed the gate: a new job in machine.yaml takes no instance out of service.
    """
    passed = files.read_receipt(layout.healthy(gpu)).get("pid") == app.pid
    return not passed and not is_warm(layout, gpu, app)


def is_due(known: Trial | None, now: float) -> bool:
    """Whether to warm an instance of which that much is known; `now` as of time.time()."""
    return known is None or (not known.ok and now - known.at >= AGAIN)


def warm(layout: Layout, gpu: int, app: App, listen: str, file: Path, timeout: float) -> Trial:
    """Run the warm-up job of an instance that answers, unless it is warm, and note the outcome.

    While another process of ours does so, wait for it. At most `timeout` seconds.
    """
    lock = private_folder.make(layout.workspace) / f"warm-gpu{gpu}.lock"
    deadline = time.monotonic() + timeout
    while True:
        with locks.attempt(lock) as ours:
            known = read(layout, gpu, app)
            if known and known.ok:
                return known
            left = deadline - time.monotonic()
            if ours:
                trial = _run(listen, app, file, left)
                _note(layout, gpu, app, trial)
                return trial
        if left <= 0:
            return Trial(False, time.time(), timeout, "another process is still running it")
        time.sleep(api.POLL)


def _run(listen: str, app: App, file: Path, timeout: float) -> Trial:
    begin = time.monotonic()
    try:
        prompt = own_jobs.read(file)
        client = api.Client(listen, app.port or 0, scheme=app.scheme)
        own_jobs.run(client, prompt, timeout)
        why = ""
    except Failure as failure:
        why = str(failure)
    except OSError as error:
        why = own_jobs.answered(error)
    return Trial(not why, time.time(), round(time.monotonic() - begin, 2), why)


def _note(layout: Layout, gpu: int, app: App, trial: Trial) -> None:
    # The workspace may have been removed: leave nothing in its place.
    if layout.instance(gpu).is_dir():
        of = {"pid": app.pid, "started": app.started}
        files.write_receipt(layout.warm(gpu), of | vars(trial))
