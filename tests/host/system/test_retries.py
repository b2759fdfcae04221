from __future__ import annotations

import time

import pytest

from comfy_machine.host.system.retries import Retries


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that were to be slept."""
    found: list[float] = []
    monkeypatch.setattr(time, "sleep", found.append)
    return found


def test_each_wait_is_twice_the_one_before_and_the_last_try_is_the_last(slept: list[float]) -> None:
    policy = Retries(attempts=4, backoff=0.5)
    assert [policy.pause(failed) for failed in range(1, 5)] == [True, True, True, False]
    assert slept == [0.5, 1.0, 2.0]


def test_a_server_s_wish_is_granted_within_bounds(slept: list[float]) -> None:
    policy = Retries(attempts=4, backoff=0.5, longest=10)
    assert [policy.pause(1, asked) for asked in (7.0, 0.0, 11.0)] == [True, True, False]
    assert slept == [7.0, 0.5]
