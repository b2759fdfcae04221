"""Which job runs next, and where: promises that hold for any jobs and instances."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from comfy_machine.services.jobs.backlog import Backlog
from comfy_machine.services.jobs.choice import AGEING, IDLE_FOR, OVERTAKEN_FOR, Choice, choose
from comfy_machine.services.jobs.demand import Instance, Need, Waiting, fits

NOW = 1000.0
GB = 10**9
CHECKPOINTS = ("", "a", "b", "c")


def instance(name: str, **about: object) -> Instance:
    about.setdefault("idle_since", 0.0)
    return Instance(name, **about)  # type: ignore[arg-type]


def job(name: str, checkpoint: str = "", **about: object) -> Waiting:
    about.setdefault("since", NOW)
    return Waiting(name, Need(checkpoint=checkpoint), **about)  # type: ignore[arg-type]


@st.composite
def instances(draw: st.DrawFn) -> list[Instance]:
    return [
        Instance(
            f"gpu{number}",
            classes=draw(st.sampled_from([None, frozenset("A"), frozenset("AB")])),
            memory=draw(st.sampled_from([None, 8 * GB, 24 * GB])),
            checkpoint=draw(st.sampled_from(CHECKPOINTS)),
            idle_since=draw(st.sampled_from([None, 1.0, 2.0])),
        )
        for number in range(draw(st.integers(0, 4)))
    ]


@st.composite
def jobs(draw: st.DrawFn) -> list[Waiting]:
    return [
        Waiting(
            f"job{number}",
            Need(
                classes=draw(st.sampled_from([frozenset[str](), frozenset("A"), frozenset("B")])),
                memory=draw(st.sampled_from([0, 4 * GB, 12 * GB])),
                checkpoint=draw(st.sampled_from(CHECKPOINTS)),
            ),
            since=NOW - draw(st.floats(0, 200)),
            priority=draw(st.integers(-2, 2)),
            owner=draw(st.sampled_from("xyz")),
            above=draw(st.sampled_from([0, 0, 8 * GB])),
            passed=draw(st.sampled_from([None, NOW - 1, NOW - 20])),
        )
        for number in range(draw(st.integers(0, 12)))
    ]


def start_all(
    waiting: Collection[Waiting],
    pool: Sequence[Instance],
    running: Mapping[str, int],
    now: float,
) -> list[tuple[Waiting, Instance]]:
    """What starts now, one choice after the other."""
    backlog, pool, counts = Backlog(), list(pool), Counter(running)
    for each in waiting:
        backlog.add(each)
    started = []
    while choice := choose(backlog.heads(), pool, counts, now):
        taken = backlog.remove(choice.job)
        assert taken is not None
        (where,) = (each for each in pool if each.name == choice.instance)
        started.append((taken, where))
        counts[taken.owner] += 1
        pool[pool.index(where)] = replace(where, idle_since=None)
    return started


@given(jobs(), instances())
def test_a_job_goes_to_an_idle_instance_that_has_what_it_needs(
    waiting: list[Waiting], pool: list[Instance]
) -> None:
    started = start_all(waiting, pool, {}, NOW)
    assert all(where.idle and fits(each, where) for each, where in started)
    assert len({where.name for _, where in started}) == len(started)
    assert len({each.id for each, _ in started}) == len(started)


@given(jobs(), instances())
def test_no_instance_stays_idle_while_a_job_that_fits_has_waited(
    waiting: list[Waiting], pool: list[Instance]
) -> None:
    started = start_all(waiting, pool, {}, NOW)
    left = [each for each in waiting if each.id not in {taken.id for taken, _ in started}]
    idle = [each for each in pool if each.idle and each not in [where for _, where in started]]
    for each in left:
        if NOW - each.since >= IDLE_FOR:
            assert not any(fits(each, where) for where in idle)


@given(jobs(), instances())
def test_a_job_is_only_overtaken_by_less_urgent_ones_where_it_can_not_run(
    waiting: list[Waiting], pool: list[Instance]
) -> None:
    waiting = [replace(each, need=replace(each.need, checkpoint="")) for each in waiting]
    started = start_all(waiting, pool, {}, NOW)
    taken = {each.id for each, _ in started}
    for left in (each for each in waiting if each.id not in taken):
        for other, where in started:
            if fits(left, where):
                assert urgency(other) >= urgency(left)


def urgency(each: Waiting, now: float = NOW) -> int:
    return each.priority + int((now - each.since) / AGEING)


@given(st.integers(1, 8), st.lists(st.sampled_from("xyz"), min_size=40, max_size=80))
def test_who_has_much_to_do_leaves_the_others_their_part(cards: int, owners: list[str]) -> None:
    """However many jobs of one came first, as many of each run as long as he has some."""
    waiting = [job(str(n), since=NOW - n / 1e6, owner=owner) for n, owner in enumerate(owners)]
    waiting += [job(f"more {n}", since=NOW - 1, owner="x") for n in range(20)]
    started = start_all(waiting, [instance(f"gpu{n}") for n in range(cards)], {}, NOW)
    run = Counter(each.owner for each, _ in started)
    asked = Counter(each.owner for each in waiting)
    most = max(run.values())
    assert len(started) == cards
    assert all(run[owner] >= most - 1 for owner in asked if run[owner] < asked[owner])


@given(st.integers(0, 10), st.integers(1, 3))
def test_the_least_urgent_job_is_not_put_off_for_ever(priority: int, cards: int) -> None:
    """Others of a higher priority come all the time, more than the instances can do."""
    pool = [instance(f"gpu{n}") for n in range(cards)]
    late = job("late", since=NOW, owner="x")
    for minute in range(priority + 2):
        now = NOW + minute * AGEING
        fresh = [job(f"{n}", since=now, priority=priority, owner="y") for n in range(5)]
        started = start_all([*fresh, late], pool, {}, now)
        if any(each is late for each, _ in started):
            return
    raise AssertionError("it never ran")


def test_a_checkpoint_stays_loaded_for_a_while_and_no_longer() -> None:
    pool = [instance("gpu0", checkpoint="a")]
    other = job("other", "b", since=NOW - 5)
    same = [job(f"same{n}", "a", since=NOW - 4 + n) for n in range(3)]
    first = choose([other, *same], pool, {}, NOW)
    assert first == Choice("same0", "gpu0", ("other",))
    backlog = Backlog()
    for each in [other, *same[1:]]:
        backlog.add(each)
    backlog.pass_over(first.passed, NOW)
    soon = choose(backlog.heads(), pool, {}, NOW + OVERTAKEN_FOR - 1)
    assert soon is not None
    assert soon.job == "same1"
    at_last = choose(backlog.heads(), pool, {}, NOW + OVERTAKEN_FOR)
    assert at_last == Choice("other", "gpu0")


def test_a_more_urgent_job_lets_no_other_go_first() -> None:
    pool = [instance("gpu0", checkpoint="a")]
    urgent = job("urgent", "b", priority=1)
    assert choose([job("same", "a"), urgent], pool, {}, NOW) == Choice("urgent", "gpu0")


def test_a_job_waits_a_moment_for_the_busy_instance_that_has_its_checkpoint() -> None:
    busy = instance("gpu0", checkpoint="a", idle_since=None)
    pool = [busy, instance("gpu1", checkpoint="b")]
    wants = job("wants", "a", since=NOW)
    assert choose([wants], pool, {}, NOW + IDLE_FOR / 2) is None
    assert choose([wants], pool, {}, NOW + IDLE_FOR) == Choice("wants", "gpu1")
    assert choose([wants], [replace(busy, idle_since=0.0), pool[1]], {}, NOW) == Choice(
        "wants", "gpu0"
    )


def test_who_lets_another_go_first_that_would_rather_wait_runs_at_once() -> None:
    small = instance("small", checkpoint="a", memory=8 * GB, classes=frozenset("A"))
    large = instance("large", checkpoint="b", memory=24 * GB, classes=frozenset())
    busy = replace(large, name="busy", checkpoint="a", idle_since=None)
    waits = Waiting("waits", Need(memory=12 * GB, checkpoint="a"), NOW)
    only_there = Waiting("only there", Need(frozenset("A"), checkpoint="c"), NOW - 9)
    chosen = choose([only_there, waits], [small, large, busy], {}, NOW)
    assert chosen == Choice("only there", "small")


def test_the_smallest_card_that_has_room_is_taken() -> None:
    pool = [instance("big", memory=80 * GB), instance("small", memory=24 * GB)]
    light = Waiting("light", Need(memory=6 * GB), NOW)
    heavy = Waiting("heavy", Need(memory=40 * GB), NOW)
    assert choose([light], pool, {}, NOW) == Choice("light", "small")
    assert choose([heavy], pool, {}, NOW) == Choice("heavy", "big")
    assert choose([heavy], pool[1:], {}, NOW) == Choice("heavy", "small"), "slowly, but it runs"
    burnt = replace(light, above=24 * GB)
    assert choose([burnt], pool[1:], {}, NOW) is None
    assert choose([burnt], pool, {}, NOW) == Choice("light", "big")
