"""Symptoms over measurements that follow each other, with no process and no clock."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from comfy_machine.host.comfyui import symptoms
from comfy_machine.host.comfyui.api import Jobs
from comfy_machine.host.comfyui.condition import Reason
from comfy_machine.host.comfyui.symptoms import History, Limits, Measurement, follow
from comfy_machine.host.system.usage import Effort

LIMITS = Limits(hung=30, job_timeout=600, start_timeout=300)
IDLE = Effort(5.0, 100)
BORN = 1000.0
"""When the process began, on the clock of the measurements."""


def measured(at: float, answered: bool = True, **more: object) -> Measurement:
    return Measurement(at=BORN + at, age=at, answered=answered, **more)  # type: ignore[arg-type]


def found_in(measurements: Iterable[Measurement], limits: Limits = LIMITS) -> list[str | None]:
    history, found = History(), list[str | None]()
    for each in measurements:
        history, symptom = follow(history, each, limits)
        found.append(symptom.message if symptom else None)
    return found


def silent(start: float, end: float, effort: Effort = IDLE, cpu: float = 0.0) -> list[Measurement]:
    """Looks without an answer, every 2 s; `cpu` is the part of a core that is used meanwhile."""
    count = int((end - start) / 2)
    return [
        measured(start + 2 * n, False, effort=Effort(effort.cpu + 2 * n * cpu, effort.faults))
        for n in range(count)
    ]


def test_one_that_answers_is_well() -> None:
    assert set(found_in(measured(2 * n) for n in range(100))) == {None}


def test_silent_and_idle_for_30_s_is_hung_and_not_a_look_before() -> None:
    found = found_in([measured(0), *silent(2, 40)])
    assert found[:16] == [None] * 16
    assert set(found[16:]) == {"no answer for 30 s"}


def test_one_answer_in_between_begins_the_count_anew() -> None:
    found = found_in([measured(0), *silent(2, 30), measured(30), *silent(32, 60), measured(60)])
    assert set(found) == {None}


def test_one_that_computes_is_given_until_job_timeout() -> None:
    found = found_in([measured(0), *silent(2, 700, cpu=0.9)])
    assert set(found[:301]) == {None}
    assert found[301] == "no answer for 600 s (instances.job_timeout)"


def test_work_that_ends_in_a_deadlock_is_hung_30_s_later() -> None:
    busy = silent(2, 100, cpu=0.9)
    last = busy[-1].effort
    assert last is not None
    found = found_in([measured(0), *busy, *silent(100, 200, last)])
    assert set(found[: 1 + len(busy) + 14]) == {None}
    assert found[-1] == "no answer for 30 s"


def test_one_that_reads_pages_from_a_slow_disk_uses_no_time_and_is_not_hung() -> None:
    reading = [
        measured(2 + 2 * n, False, effort=Effort(5.0 + 0.02 * n, 100 + 50 * n)) for n in range(100)
    ]
    assert set(found_in([measured(0), *reading])) == {None}


def test_one_that_waits_for_a_core_or_a_disk_does_nothing_and_is_not_hung() -> None:
    starved = [measured(2 + 2 * n, False, effort=Effort(5.0, 100, waits=True)) for n in range(100)]
    assert set(found_in([measured(0), *starved])) == {None}
    answering = [replace(each, answered=True, jobs=Jobs((), 1)) for each in starved]
    assert "none has started" in str(found_in(answering)[-1]), "seen at the end of its answer"


def test_one_that_starts_is_not_hung_until_health_timeout() -> None:
    assert set(found_in(silent(0, 300))) == {None}
    assert found_in(silent(0, 304))[-1] == "no answer for 30 s"


def test_time_in_which_nobody_looked_counts_for_nothing() -> None:
    asleep = [
        measured(0),
        *silent(2, 12),
        measured(500, False, effort=IDLE),
        measured(502, False, effort=IDLE),
    ]
    assert set(found_in(asleep)) == {None}


def test_a_process_whose_effort_cannot_be_seen_is_not_taken_for_idle() -> None:
    assert set(found_in([measured(0), *(measured(2 + 2 * n, False) for n in range(100))])) == {None}


def working(start: float, end: float, *running: str, waiting: int = 0) -> list[Measurement]:
    count = int((end - start) / 10)
    jobs = Jobs(running, waiting)
    return [measured(start + 10 * n, effort=IDLE, jobs=jobs) for n in range(count)]


def test_a_job_is_stuck_once_it_was_seen_for_job_timeout() -> None:
    found = found_in(working(0, 620, "a"))
    assert set(found[:60]) == {None}
    assert found[60] == "job a has run for 600 s (instances.job_timeout)"


def test_many_jobs_that_follow_each_other_are_not_one_long_job() -> None:
    measurements = [each for n in range(100) for each in working(n * 100, n * 100 + 100, f"job{n}")]
    assert set(found_in(measurements)) == {None}


def test_a_job_that_was_not_asked_for_meanwhile_may_have_ended() -> None:
    found = found_in(
        [*working(0, 600, "a"), measured(602), measured(604), measured(606, jobs=Jobs(("b",)))]
    )
    assert set(found) == {None}


def test_jobs_that_nobody_takes_show_that_the_worker_thread_is_gone() -> None:
    found = found_in(working(0, 60, waiting=2))
    assert set(found[:3]) == {None}
    assert found[3] == ("its worker thread is dead: jobs wait, and none has started for 30 s")


def test_a_worker_that_still_clears_up_after_a_job_is_let_be() -> None:
    measurements = [
        measured(2 * n, effort=Effort(1.8 * n, 0), jobs=Jobs((), 1) if n % 5 == 0 else None)
        for n in range(100)
    ]
    assert set(found_in(measurements)) == {None}


def test_more_memory_than_the_cap_is_said_until_it_is_less() -> None:
    limits = Limits(30, 600, 300, memory=24 << 30)
    found = found_in(
        [
            measured(0, memory=24 << 30),
            measured(2),
            measured(10, memory=25 << 30),
            measured(12),
            measured(20, memory=1),
        ],
        limits,
    )
    words = "more than 24G of memory (instances.limits.memory)"
    assert found == [None, None, words, words, None]


def test_each_symptom_has_its_code() -> None:
    def code(*measurements: Measurement, limits: Limits = LIMITS) -> Reason | None:
        history, last = History(), None
        for each in measurements:
            history, last = follow(history, each, limits)
        return last.reason if last else None

    cap = replace(LIMITS, memory=1)
    assert code(measured(0)) is None
    assert code(measured(0), *silent(2, 40)) == "Hanging"
    assert code(measured(0), *silent(2, 700, cpu=0.9)) == "JobTimeout"
    assert code(*working(0, 620, "a")) == "JobTimeout"
    assert code(*working(0, 60, waiting=2)) == "WorkerThreadDead"
    assert code(measured(0, memory=2), limits=cap) == "MemoryLimit"
    assert symptoms.dead_thread("a").reason == "WorkerThreadDead"


def test_one_that_works_may_be_silent_for_a_while() -> None:
    def reason(seconds: float, *, works: bool) -> Reason | None:
        found = symptoms.silence(1000.0, 1000.0 + seconds, works)
        return found.reason if found else None

    assert reason(1.0, works=False) == "Hanging"
    assert reason(1.0, works=True) is None
    assert reason(symptoms.BUSY, works=True) == "Busy"
