"""What machine.yaml, machine.lock and this machine know about each download beforehand."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

from ..engine import lock_file
from ..engine.messages import describe_move
from ..engine.run import Run
from ..host.downloads import civitai, model_files, remote_file
from ..host.downloads.web import Web
from ..host.system import files, thread_pool
from ..host.system.failure import Failure
from ..host.system.program_files import PROGRAM
from ..spec import ModelFile, ModelPin

AT_ONCE = 8
"""Files that are processed at once."""


def downloads(run: Run) -> list[ModelFile]:
    """The models that are downloads."""
    return [file for file in run.machine.models.files if file.url]


def web_of(run: Run) -> Web:
    return Web(tokens=run.machine.models.tokens, environ=run.machine.env)


def read_records(run: Run) -> dict[str, dict[str, Any]]:
    """Target that this machine fetched → a pin's fields, and `mtime` (s) when it was verified."""
    return model_files.noted(run.layout)


def write_records(run: Run, models: dict[str, dict[str, Any]]) -> None:
    files.write_receipt(model_files.receipt_of(run.layout), {"models": models})


def pin(run: Run, file: ModelFile, records: dict[str, dict[str, Any]]) -> ModelPin:
    """machine.yaml's entry, completed by machine.lock or by this machine's records."""
    locked, record = run.machine.lock.models.get(file.target), records.get(file.target)
    return model_files.pin(file.url or "", file.sha256, locked, record)


def newest_pins(run: Run) -> dict[str, ModelPin]:
    """The lock's models, with the newest version of those to update. Raises Failure.

    If a host doesn't state a file's sha256, the next run downloads the file to compute it.
    """
    web, here = web_of(run), read_records(run)
    files_ = [file for file in downloads(run) if file.target in run.machine.lock.models]
    chosen = [f for f in files_ if not f.sha256 and run.updating(f.target)]
    pins = {file.target: run.machine.lock.models[file.target] for file in files_}
    for file, found in thread_pool.each(lambda file: _newest(file, web), chosen, AT_ONCE):
        before = pin(run, file, here)
        if isinstance(found, BaseException):
            if not file.optional:
                raise found
            continue
        if found.sha256 != before.sha256 or found.sha256 is None:
            pins[file.target] = found
            new = found.sha256[:12] if found.sha256 else "known after the next run"
            run.tell(describe_move(file.target, (before.sha256 or "unknown")[:12], new))
    return pins


def _newest(file: ModelFile, web: Web) -> ModelPin:
    url = file.url or ""
    if civitai.is_page(url):
        address, sha256 = civitai.newest(url, file.target, web)
        return ModelPin(url=url, download=address, sha256=sha256)
    offered = remote_file.ask(url, file.target, web)
    return ModelPin(
        url=url, download=offered.pinned, sha256=offered.sha256, size=offered.version.size
    ) if offered.sha256 else ModelPin(url=url)  # fmt: skip


def unpinned(run: Run) -> list[str]:
    """Targets without a sha256 in machine.yaml and machine.lock."""
    return [
        file.target
        for file in downloads(run)
        if not file.optional and pin(run, file, {}).sha256 is None
    ]


def require_pins(run: Run) -> None:
    """Raises Failure when a target has no sha256 and locked=1."""
    if run.locked and (missing := unpinned(run)):
        raise Failure(
            f"{run.machine.lock_file.name} doesn't have {', '.join(missing[:5])}"
            f"{' …' if len(missing) > 5 else ''}: run {PROGRAM} models without locked=1, "
            "and commit the lock; or give sha256"
        )


def is_lock_updated(run: Run) -> bool:
    """Whether this run writes new pins into machine.lock."""
    writable = os.access(run.machine.lock_file.resolve().parent, os.W_OK)
    return writable and not run.machine.overridden and not run.locked


def lock_section(run: Run, records: dict[str, dict[str, Any]]) -> dict[str, ModelPin]:
    pins = {file.target: pin(run, file, records) for file in downloads(run)}
    return {target: pin for target, pin in pins.items() if pin.sha256}


class Recorder:
    """Records what was fetched, at most once every EVERY seconds, and at the end."""

    EVERY = 1.0
    """Seconds."""

    def __init__(self, run: Run, records: dict[str, dict[str, Any]]) -> None:
        self._run = run
        self._records = records
        self._fetched: dict[str, ModelPin] = {}
        self._lock = threading.RLock()
        self._written = time.monotonic()

    def add(self, models: list[ModelFile], pin: ModelPin, mtime: int) -> None:
        with self._lock:
            for file in models:
                own = pin.model_copy(update={"url": file.url})
                self._fetched[file.target] = own
                self._records[file.target] = {**own.model_dump(), "mtime": mtime}
            if time.monotonic() - self._written > self.EVERY:
                self.write()

    def write(self) -> None:
        with self._lock:
            self._written = time.monotonic()
            write_records(self._run, self._records)
            if is_lock_updated(self._run):
                section = lock_section(self._run, self._records) | self._fetched
                lock_file.write(self._run, models=section)
