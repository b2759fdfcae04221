"""Several things at once, and how far they are."""

from __future__ import annotations

import threading

import pytest

from tasks.host.system import thread_pool
from tasks.host.system.progress import Progress, duration, line, size


def test_each_item_comes_back_in_order_with_its_result_or_what_it_raised() -> None:
    def work(number: int) -> int:
        if number % 3 == 0:
            raise ValueError(number)
        return number * 2

    results = thread_pool.each(work, range(20), 4)
    assert [item for item, _ in results] == list(range(20))
    for item, result in results:
        assert isinstance(result, ValueError) if item % 3 == 0 else result == item * 2


def test_that_many_run_at_once_and_no_more() -> None:
    barrier, lock = threading.Barrier(4), threading.Lock()
    now, most = [0], [0]

    def work(_: int) -> None:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        barrier.wait(10)
        with lock:
            now[0] -= 1

    assert [result for _, result in thread_pool.each(work, range(8), 4)] == [None] * 8
    assert most[0] <= 4
    assert thread_pool.each(work, [], 4) == []


def test_a_snapshot_adds_up_what_threads_counted() -> None:
    progress = Progress("models")
    for name in "abc":
        progress.add(name, 1000)
    progress.add("failed", 500)

    def count(name: str) -> None:
        progress.begin(name, 1000, done=100)
        for _ in range(900):
            progress.advance(name, 1)

    thread_pool.each(count, "ab", 2)
    progress.end("a")
    progress.end("failed", failed=True)
    shot = progress.snapshot()
    assert (shot["files"], shot["files_done"], shot["files_failed"]) == (4, 1, 1)
    assert (shot["bytes"], shot["bytes_done"]) == (3000, 2000)
    assert shot["running"] == [{"name": "b", "bytes": 1000, "bytes_done": 1000}]
    assert shot["rate"] > 0
    assert line(shot).startswith("models: 1 of 4 files, 2 kB of 3 kB, ")


def test_what_begins_again_is_not_counted_twice() -> None:
    progress = Progress("models")
    for _ in range(2):
        progress.begin("a", 1000)
        progress.advance("a", 600)
    assert progress.snapshot()["bytes_done"] == 600
    assert progress.items["a"].moved == 1200


def test_a_total_is_unknown_while_one_file_is() -> None:
    progress = Progress("models")
    progress.begin("a", None)
    progress.advance("a", 5)
    assert progress.snapshot()["bytes"] is None
    assert progress.snapshot()["seconds_left"] is None


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (999_499, "999 kB"), (999_500, "1.0 MB"),
     (1_500_000, "1.5 MB"), (999_960_000, "1.0 GB"), (7e12, "7.00 TB")],
)  # fmt: skip
def test_sizes_are_for_people(count: float, text: str) -> None:
    assert size(count) == text


def test_durations_are_for_people() -> None:
    assert [duration(s) for s in (5, 89, 90, 3600, 7200)] == [
        "5 s", "89 s", "2 min", "60 min", "2.0 h",
    ]  # fmt: skip


def test_with_ramp_threads_join_those_that_wait() -> None:
    barrier = threading.Barrier(3)

    def wait(number: int) -> int:
        barrier.wait(timeout=20)
        return number

    assert thread_pool.each(wait, [1, 2, 3], 3, ramp=True) == [(1, 1), (2, 2), (3, 3)]


def test_with_ramp_nobody_joins_who_would_only_be_in_the_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(thread_pool, "BUSY", -1)
    names = thread_pool.each(lambda _: threading.current_thread().name, range(20), 4, ramp=True)
    assert len({name for _, name in names}) == 1
