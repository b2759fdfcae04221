"""Warm-up: one real job after each start, before an instance counts as healthy.

The outcome is recorded beside the instance, with the process that ran the job. A process that PM2
restarted is therefore cold again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...spec.layout import Layout
from ..pm2.apps import App
from ..system import files, locks, private_folder
from ..system.failure import Failure
from . import api, own_jobs
from .own_jobs import Trial

NOT_YET = "its warm-up job has not finished yet"
CLOCK_DRIFT = 2.0
"""Seconds by which the start time of one process may vary: clocks are set."""
RETRY_AFTER = 60.0
"""Seconds until a failed job is run again, while no doit run is in progress."""


def outcome(layout: Layout, gpu: int, app: App) -> Trial | None:
    """The outcome of this process's warm-up job; None: not known yet."""
    recorded = files.read_receipt(
        layout.warm(gpu), pid=int, started=float, ok=bool, at=float, seconds=float, reason=str
    )
    if not is_of(app, recorded):
        return None
    return Trial(recorded["ok"], recorded["at"], recorded["seconds"], recorded["reason"])


def is_of(app: App, recorded: Mapping[str, Any]) -> bool:
    """Whether a record is about this process."""
    same_pid = recorded.get("pid") == app.pid
    return same_pid and abs(recorded["started"] - app.started) <= CLOCK_DRIFT


def record(layout: Layout, gpu: int, app: App, file: Path, values: Mapping[str, Any]) -> None:
    """Record what is known of this process, unless the workspace was removed."""
    if layout.instance(gpu).is_dir():
        files.write_receipt(file, {"pid": app.pid, "started": app.started, **values})


def is_warm(layout: Layout, gpu: int, app: App) -> bool:
    known = outcome(layout, gpu, app)
    return known is not None and known.ok


def is_cold(layout: Layout, gpu: int, app: App) -> bool:
    """Whether this process must run its warm-up job before it is healthy for the first time.

    A process that passed the gate is not cold: a new job in machine.yaml takes no instance out of
    service.
    """
    passed = files.read_receipt(layout.healthy(gpu)).get("pid") == app.pid
    return not passed and not is_warm(layout, gpu, app)


def is_due(known: Trial | None, now: float) -> bool:
    """Whether to run the warm-up job, given its last outcome; `now` is from time.time()."""
    return known is None or (not known.ok and now - known.at >= RETRY_AFTER)


def warm(layout: Layout, gpu: int, app: App, listen: str, file: Path, timeout: float) -> Trial:
    """Run the warm-up job of an instance that answers, unless it is warm, and record the outcome.

    If another process of ours is running it, wait for that one. At most `timeout` seconds.
    """
    lock = private_folder.make(layout.workspace) / f"warm-gpu{gpu}.lock"
    deadline = time.monotonic() + timeout
    while True:
        with locks.attempt(lock) as is_held:
            known = outcome(layout, gpu, app)
            if known and known.ok:
                return known
            left = deadline - time.monotonic()
            if is_held:
                trial = _run(listen, app, file, left)
                record(layout, gpu, app, layout.warm(gpu), vars(trial))
                return trial
        if left <= 0:
            return Trial(False, time.time(), timeout, "another process is still running it")
        time.sleep(api.POLL)


def _run(listen: str, app: App, file: Path, timeout: float) -> Trial:
    begin = time.monotonic()
    try:
        prompt = own_jobs.read_workflow(file)
        client = api.Client(listen, app.port or 0, scheme=app.scheme)
        own_jobs.run(client, prompt, timeout)
        why = ""
    except Failure as failure:
        why = str(failure)
    except OSError as error:
        why = own_jobs.describe_error(error)
    return Trial(not why, time.time(), round(time.monotonic() - begin, 2), why)
