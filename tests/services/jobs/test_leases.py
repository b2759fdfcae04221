"""Leases are timed by the scheduler's own clock, from what it has seen itself."""

from __future__ import annotations

from comfy_machine.services.jobs.leases import LASTS, Leases
from comfy_machine.services.jobs.record import Record


def leased(name: str = "job", attempt: int = 1, owner: str = "ann", instance: str = "a") -> Record:
    return Record(
        id=name, submitted=0.0, state="leased", attempt=attempt, owner=owner, instance=instance
    )


def expired(leases: Leases, now: float) -> list[str]:
    return [record.id for record in leases.expired(now)]


def test_a_lease_ends_unless_it_is_renewed() -> None:
    leases = Leases()
    leases.note(leased(), 0.0)
    assert expired(leases, LASTS) == []
    assert expired(leases, LASTS + 1) == ["job"]
    leases.renew("job", 1, 5.0)
    assert expired(leases, LASTS + 1) == []


def test_nobody_renews_another_attempt() -> None:
    leases = Leases()
    leases.note(leased(attempt=2), 0.0)
    leases.renew("job", 1, 5.0)
    assert expired(leases, LASTS + 1) == ["job"]


def test_another_attempt_begins_anew_and_another_write_of_the_same_does_not() -> None:
    leases = Leases()
    leases.note(leased(), 0.0)
    leases.note(leased(), 10.0)
    assert expired(leases, LASTS + 1) == ["job"]
    leases.note(leased(attempt=2), 10.0)
    assert expired(leases, LASTS + 1) == []


def test_after_a_silence_of_ones_own_all_begin_anew() -> None:
    leases = Leases()
    leases.note(leased(), 0.0)
    leases.renew_all(100.0)
    assert expired(leases, 100 + LASTS) == []


def test_running_jobs_are_counted_by_owner_and_found_by_instance() -> None:
    leases = Leases()
    for number in range(3):
        leases.note(
            leased(f"{number}", owner="ann" if number else "bob", instance="ab"[number % 2]), 0
        )
    assert leases.running() == {"ann": 2, "bob": 1}
    assert [each.job for each in leases.of("a", frozenset(["2"]))] == ["0"]
    leases.end("1")
    leases.end("1")
    assert leases.running() == {"ann": 1, "bob": 1}
