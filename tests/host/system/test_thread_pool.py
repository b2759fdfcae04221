"""Several things at once."""

from __future__ import annotations

import threading

import pytest

from comfy_machine.host.system import thread_pool


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
