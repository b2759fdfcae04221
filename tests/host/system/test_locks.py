from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

from comfy_machine.host.system import locks


def test_a_lock_has_one_holder_until_its_descriptor_is_closed(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    held = locks.claim(file)
    assert held is not None
    assert locks.claim(file) is None
    with locks.attempt(file) as ours:
        assert not ours
    os.close(held)
    with locks.attempt(file) as ours:
        assert ours
        assert locks.claim(file) is None
    with locks.exclusive(file):
        assert locks.claim(file) is None


def test_a_lock_that_is_given_back_can_be_taken_while_the_file_stays_open(tmp_path: Path) -> None:
    held = locks.claim(tmp_path / "lock")
    assert held is not None
    locks.unlock(held)
    with locks.attempt(tmp_path / "lock") as ours:
        assert ours
        assert not locks.lock(held)
    os.close(held)


def test_on_a_volume_without_locks_a_claim_keeps_no_process_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    for _ in range(2):
        held = locks.claim(tmp_path / "lock")
        assert held is not None
        os.close(held)
