"""Jobs: waiting, running and done."""

from __future__ import annotations

import copy
import heapq
import logging
import threading
from collections.abc import Callable
from typing import Any

import nodes
from simulation.validation import Prompt

Job = tuple[float, str, Prompt, dict[str, Any], list[str]]
"""Number, prompt id, prompt, extra data and the ids of the outputs to execute."""

HISTORY_SIZE = 10000
SECRETS = ("auth_token_comfy_org", "api_key_comfy_org")
"""Names of extra data that the history doesn't keep, and since 2026 the queue doesn't show."""


class PromptQueue:
    """Jobs that wait, that run and that are done. All of it is lost with the process."""

    def __init__(self, updated: Callable[[], None]) -> None:
        self._updated = updated
        self._lock = threading.Condition()
        self._pending: list[Job] = []
        self._running: dict[int, Job] = {}
        self._history: dict[str, dict[str, Any]] = {}
        self._started = 0
        self._secrets: dict[str, dict[str, Any]] = {}

    def put(self, job: Job, secrets: dict[str, Any]) -> None:
        """`secrets` belong to its extra_data, but are shown to nobody."""
        with self._lock:
            self._secrets[job[1]] = secrets
            heapq.heappush(self._pending, job)
            self._updated()
            self._lock.notify()

    def take(self) -> tuple[int, Job]:
        """Wait for a job; the number with which to finish() it comes along."""
        with self._lock:
            while not self._pending:
                self._lock.wait()
            job = heapq.heappop(self._pending)
            self._started += 1
            self._running[self._started] = copy.deepcopy(job)
            self._updated()
            job[3].update(self._secrets.pop(job[1], {}))
            return self._started, job

    def finish(self, number: int, result: dict[str, Any], status: dict[str, Any]) -> None:
        with self._lock:
            job = self._running.pop(number)
            for secret in SECRETS:
                job[3].pop(secret, None)
            if len(self._history) > HISTORY_SIZE:
                del self._history[next(iter(self._history))]
            self._history[job[1]] = {"prompt": job, "outputs": {}, "status": status, **result}
            self._updated()

    def remaining(self) -> int:
        with self._lock:
            return len(self._pending) + len(self._running)

    def snapshot(self) -> tuple[list[Job], list[Job]]:
        """The running and the pending jobs."""
        with self._lock:
            return list(self._running.values()), list(self._pending)

    def clear(self) -> None:
        with self._lock:
            self._pending = []
            self._updated()

    def delete(self, prompt_id: str) -> bool:
        """Take the first pending job of that id out; whether there was one."""
        with self._lock:
            for job in self._pending:
                if job[1] == prompt_id:
                    self._pending.remove(job)
                    heapq.heapify(self._pending)
                    self._updated()
                    return True
        return False

    def interrupt_if_running(self, prompt_id: str) -> bool:
        """Interrupt the job of that id if it runs; none can take its place meanwhile."""
        with self._lock:
            if all(job[1] != prompt_id for job in self._running.values()):
                return False
            logging.info("Cancelling running prompt %s", prompt_id)
            nodes.interrupt_processing()
            return True

    def history(self, max_items: int | None = None, offset: int = -1) -> dict[str, Any]:
        """Done jobs, oldest first: from offset, or the last max_items."""
        with self._lock:
            done = list(self._history.items())
        if offset < 0:
            offset = 0 if max_items is None else max(0, len(done) - max_items)
        end = None if max_items is None else offset + max_items
        return dict(done[offset:end])

    def done(self, prompt_id: str) -> dict[str, Any]:
        with self._lock:
            found = self._history.get(prompt_id)
            return {} if found is None else {prompt_id: copy.deepcopy(found)}

    def clear_history(self) -> None:
        with self._lock:
            self._history.clear()

    def delete_history(self, prompt_id: str) -> None:
        with self._lock:
            self._history.pop(prompt_id, None)
