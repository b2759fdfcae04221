"""Parallel work on daemon threads, which never keep the process alive."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

RAMP = 0.02
"""Seconds between two checks whether one more thread helps."""
BUSY = 0.7
"""Share of a core in use above which it doesn't."""


def each(
    work: Callable[[T], R], items: Iterable[T], threads: int, *, ramp: bool = False
) -> list[tuple[T, R | BaseException]]:
    """Call `work` for every item, `threads` at a time; each item with its result or exception.

    With `ramp`, threads start one after the other while this process has CPU time left: more
    threads help when they wait for the network, not when they compute.
    """
    todo = list(enumerate(items))
    waiting: queue.SimpleQueue[tuple[int, T]] = queue.SimpleQueue()
    for numbered in todo:
        waiting.put(numbered)
    results: dict[int, R | BaseException] = {}

    def serve() -> None:
        while True:
            try:
                number, item = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                results[number] = work(item)
            except BaseException as error:
                results[number] = error

    workers: list[threading.Thread] = []
    while len(workers) < min(threads, len(todo)) and not waiting.empty():
        before = time.process_time()
        if workers and ramp:
            time.sleep(RAMP)
            if time.process_time() - before > BUSY * RAMP:
                continue
        workers.append(threading.Thread(target=serve, daemon=True))
        workers[-1].start()
    for thread in workers:
        thread.join()
    return [(item, results[number]) for number, item in todo]


@contextlib.contextmanager
def beside(watch: Callable[..., None], *arguments: object) -> Iterator[None]:
    """Run `watch` in a thread during the body; its last argument is an event, set at the end."""
    ended = threading.Event()
    thread = threading.Thread(target=watch, args=(*arguments, ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
