"""The board of answers: what they say of their age, since when, and how one waits for them."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_args

import pytest

from comfy_machine.host.comfyui.condition import HEALTHY, Health
from comfy_machine.services.health.conditions.answer_board import Answer, Answers, Board, Since
from comfy_machine.services.health.conditions.composition import compose
from comfy_machine.services.health.model.facts import Facts
from tests.services import moments as m
from tests.services import samples

LONG = 30.0
"""Seconds that nothing here takes."""


def composed(facts: Facts | None = None, since: Since | None = None, **sample: Any) -> Answers:
    by_gpu = {0: m.sample(**sample)}
    return compose(facts or m.facts(), by_gpu, since or Since(), lambda body: body)


@pytest.mark.parametrize("status", get_args(Health))
def test_the_code_says_what_the_status_does(status: Health) -> None:
    answer = Answer(samples.instance(0, status), bytes)
    assert answer.code == (200 if status in HEALTHY else 503)
    assert (status in HEALTHY) is (status in ("healthy", "progressing", "degraded", "disabled"))


def test_an_answer_grows_older_without_being_made_again() -> None:
    made: list[bytes] = []

    def mask(body: bytes) -> bytes:
        made.append(body)
        return body.replace(b"gpu0", b"***")

    young, old = (
        Answer(samples.instance(0), mask, time.monotonic() - age) for age in (0.0, 1000.0)
    )
    assert json.loads(young.body)["age"] < 900 < 1000 <= json.loads(old.body)["age"]
    assert json.loads(old.body)["name"] == "comfyui-***"
    assert old.body.count(b'"age"') == old.rest.count(b'"age"') + 1
    assert len(made) == 2
    assert "age" not in json.loads(Answer(samples.instance(0), mask).body)
    ahead = Answer(samples.instance(0), mask, time.monotonic() + 1000)
    assert json.loads(ahead.body)["age"] == 0


def test_an_answer_says_since_when_it_is_so(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "time", lambda: now[0])
    since = Since()

    def told(**sample: Any) -> tuple[str, float, float]:
        answers = composed(since=since, **sample)
        instance, overview = answers.by_gpu[0].verdict, answers.overview.verdict
        now[0] += 10
        return instance.status, instance.since, overview.since

    assert told() == ("healthy", 1000, 1000)
    assert told() == ("healthy", 1000, 1000)
    assert told(symptom=m.TOO_LARGE) == ("unhealthy", 1020, 1020)
    assert told(symptom=m.HANGS) == ("unhealthy", 1020, 1020), "another reason, as sick"
    assert told() == ("healthy", 1040, 1040)
    assert composed(since=since).installation.verdict.since == 1000


def test_the_machine_is_ready_when_some_instance_takes_jobs() -> None:
    well = composed()
    assert well.ready.healthy
    assert composed(m.facts(run=m.FAILED)).ready.healthy
    assert not composed(draining=True).ready.healthy
    assert not composed(cold=True).ready.healthy
    assert not composed(m.facts(settings=m.settings(enabled=False, instances=()))).ready.healthy
    two = replace(well, by_gpu={0: composed(draining=True).by_gpu[0], 1: well.by_gpu[0]})
    assert two.ready.healthy


def test_services_say_what_they_wait_for() -> None:
    facts = m.facts(
        installed=m.installed("nothing is installed yet"), run=m.INSTALLS,
        workers={"fetch-gpu0": m.state(None)},
    )  # fmt: skip
    told = json.loads(composed(facts, state=m.state(None)).overview.body)
    assert [(each["name"], each["waits_for"]) for each in told["services"]] == [
        ("comfyui-gpu0", ["installation"]), ("fetch-gpu0", ["comfyui-gpu0"]),
    ]  # fmt: skip
    assert told["layers"] == dict.fromkeys(("running", "functional", "installed"), False) | {
        "models": True
    }
    assert told["status"] == "installing"
    assert told["run"]["tasks"] == [], "the installation's answer has them"


async def _stays() -> bool:
    return False


def waiting(
    first: Answers, publish: Callable[[Board], None], seconds: float, wanted: str = "healthy"
) -> tuple[str, float]:
    """What is seen after waiting, and the seconds that it took; `publish` is another thread's."""

    async def wait() -> tuple[str, float]:
        posted = Board(first)
        posted.attach(asyncio.get_running_loop())
        thread = threading.Thread(target=publish, args=(posted,))
        began = time.monotonic()
        thread.start()
        await posted.wait(
            lambda answers: answers.overview.verdict.status == wanted, seconds, _stays
        )
        took = time.monotonic() - began
        thread.join()
        return posted.answers.overview.verdict.status, took

    return asyncio.run(wait())


def test_whoever_waits_is_woken_by_the_answer_that_was_waited_for() -> None:
    down, well = composed(state=m.state(None)), composed()

    def publish(posted: Board) -> None:
        for answers in (down, down, well):
            posted.publish(answers)

    status, took = waiting(down, publish, LONG)
    assert (status, took < LONG) == ("healthy", True)
    assert waiting(well, lambda _: None, LONG)[1] < LONG, "it is so already"


def test_whoever_waits_does_not_do_so_for_longer_than_asked() -> None:
    down = composed(state=m.state(None))
    assert waiting(down, lambda posted: posted.publish(down), 0.1)[0] == "unhealthy"


def test_many_who_wait_are_woken_together() -> None:
    async def wait() -> None:
        posted = Board(composed(state=m.state(None)))
        posted.attach(asyncio.get_running_loop())
        every = [
            asyncio.ensure_future(posted.wait(lambda answers: answers.ready.healthy, LONG, _stays))
            for _ in range(100)
        ]
        await asyncio.sleep(0)
        posted.publish(composed())
        await asyncio.wait_for(asyncio.gather(*every), LONG / 2)

    asyncio.run(wait())


def test_answers_may_come_before_and_after_there_is_anybody_to_wait() -> None:
    posted = Board(composed())
    down, well = composed(state=m.state(None)), composed()
    posted.publish(down)
    assert posted.answers is down

    async def attach() -> None:
        posted.attach(asyncio.get_running_loop())

    asyncio.run(attach())
    posted.publish(well)
    assert posted.answers is well
