"""What the scheduler knows of instances: what came late changes nothing, silence ends."""

from __future__ import annotations

from comfy_machine.services.jobs.instance_pool import FORGOTTEN, SILENT, Pool
from comfy_machine.services.jobs.worker_protocol import Announcement, Inventory, State


def said(number: int, state: State = "idle", session: str = "one", name: str = "a") -> Announcement:
    return Announcement(instance=name, session=session, number=number, state=state)


def idle(pool: Pool, now: float = 0.0) -> list[str]:
    return [each.name for each in pool.instances(now) if each.idle]


def heard(*announcements: Announcement) -> Pool:
    pool = Pool()
    for each in announcements:
        pool.hear(each, 0.0)
    return pool


def test_who_is_idle_can_have_a_job_and_who_is_silent_can_not() -> None:
    pool = heard(said(1))
    assert idle(pool, SILENT) == ["a"]
    assert idle(pool, SILENT + 1) == []
    pool.forget(SILENT + 1)
    assert [each.name for each in pool.known()] == ["a"]
    pool.forget(FORGOTTEN + 1)
    assert pool.known() == []


def test_who_is_busy_or_away_gets_no_job() -> None:
    assert idle(heard(said(1, "busy"), said(1, "away", name="b"))) == []
    pool = heard(said(1, "away"))
    assert pool.instances(0.0) == []
    pool.hear(said(2), 0.0)
    assert idle(pool) == ["a"]


def test_one_with_a_job_on_its_way_gets_no_other() -> None:
    pool = heard(said(1))
    pool.give("a", "job")
    assert idle(pool) == []
    pool.hear(said(2), 0.0)
    assert idle(pool) == []
    pool.release("a")
    assert idle(pool) == ["a"]


def test_an_announcement_from_before_the_answer_changes_nothing() -> None:
    pool = heard(said(7))
    pool.give("a", "job")
    pool.settle("a", 8, True)
    pool.hear(said(8), 0.0)
    assert idle(pool) == []
    pool.hear(said(9, "busy"), 0.0)
    pool.hear(said(10), 0.0)
    assert idle(pool) == ["a"]


def test_one_that_refused_gets_no_job_before_it_announces_itself_again() -> None:
    pool = heard(said(7))
    pool.give("a", "job")
    pool.settle("a", 7, False)
    assert idle(pool) == []
    pool.hear(said(8), 0.0)
    assert idle(pool) == ["a"]


def test_a_worker_that_was_started_anew_counts_from_one() -> None:
    pool = heard(said(500))
    pool.give("a", "job")
    pool.settle("a", 500, True)
    pool.hear(said(1, session="two"), 0.0)
    assert idle(pool) == ["a"]


def test_what_an_instance_has_is_asked_for_once() -> None:
    pool = Pool()
    pool.hear(said(1).model_copy(update={"inventory": "5"}), 0.0)
    assert pool.lacks_inventory("a")
    pool.describe("a", Inventory(classes=("A",), models=("loras/x.pt",)), "5")
    assert not pool.lacks_inventory("a")
    (known,) = pool.known()
    assert known.classes == frozenset(["A"])
    assert known.models == frozenset(["loras/x.pt"])
