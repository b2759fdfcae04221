"""Several things at once, on threads that never keep the process from ending."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def each(
    work: Callable[[T], R], items: Iterable[T], threads: int
) -> list[tuple[T, R | BaseException]]:
    """Do `work` for every item, `threads` at a time; each with its result or what it raised."""
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

    crew = [threading.Thread(target=serve, daemon=True) for _ in range(min(threads, len(todo)))]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join()
    return [(item, results[number]) for number, item in todo]
