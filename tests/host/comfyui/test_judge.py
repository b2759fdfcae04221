"""The judge of an instance, as a table: observation and rules in, conditions out."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest

from comfy_machine.host.comfyui import condition, judge
from comfy_machine.host.comfyui.condition import Condition
from comfy_machine.host.comfyui.judge import Rules
from comfy_machine.host.pm2.endings import Ending
from tests.services import moments as m

LOOPS = {"status": "errored", "restart_time": 4}
RESTARTS = {"status": "online", "unstable_restarts": 2, "min_uptime": 30_000}
RULES = Rules(60.0, required={"needed"}, classes={"needed": ["Here"], "extra": ["Here"]})
LOADS = {"answer": m.REFUSES}


STOPPED = replace(m.state(None), was_stopped=True)
OOM = Ending("out of memory", "memory ran out")
KILLED = Ending("killed", "it was killed by signal 9 (SIGKILL)")


def judged(rules: Rules = RULES, **observed: Any) -> list[Condition]:
    return judge.judge(m.sample(**observed).observation, rules)


def test_one_that_is_well_has_no_condition_that_is_false() -> None:
    assert judged() == []
    well = condition.ready(judged())
    assert (well.health, well.status, well.reason) == ("healthy", "True", "Healthy")


@pytest.mark.parametrize(
    ("observed", "rules", "health", "code", "message"),
    [
        ({"state": m.state(None)}, {}, "down", "NotStarted", "not started"),
        ({"state": m.state(None), "awaited": True}, {}, "starting", "AwaitsRun", "the run in"),
        ({"state": m.state(None, {}), "awaited": True}, {}, "starting", "AwaitsRun", "the run in"),
        ({"state": m.state(None, {})}, {}, "down", "Exited", "it ended, and how is not known"),
        ({"state": STOPPED}, {}, "down", "Stopped", "stopped"),
        ({"state": replace(STOPPED, ending=m.DOWN)}, {}, "down", "Stopped", "stopped by doit down"),
        ({"state": m.state(None, {}, OOM)}, {}, "down", "OutOfMemory", "memory ran out"),
        ({"state": m.state(None, {}, KILLED)}, {}, "down", "Killed", "it was killed by signal 9"),
        ({"state": m.state(None, LOOPS)}, {}, "crash loop", "CrashLoop", "it ended, and how is"),
        ({"state": m.state(None, LOOPS), "awaited": True}, {}, "crash loop", "CrashLoop", "it en"),
        ({"state": m.state(m.app(), LOOPS), **LOADS}, {}, "crash loop", "CrashLoop", "it ended"),
        ({"state": m.state(m.app(), RESTARTS), **LOADS}, {}, "crash loop", "CrashLoop", "it end"),
        ({"state": m.state(m.app(age=31), RESTARTS)}, {}, "healthy", "Healthy", ""),
        ({"state": m.state(m.app(), LOOPS)}, {}, "healthy", "Healthy", ""),
        (LOADS, {}, "starting", "Starting", "nothing answers on port"),
        ({"state": m.state(m.app(age=61)), **LOADS}, {}, "unhealthy", "StartTimeout", "nothing an"),
        ({"answer": m.SILENT}, {}, "unhealthy", "NoAnswer", "no answer from port"),
        ({"answer": m.WRONG}, {}, "unhealthy", "WrongAnswer", "it answers with code 500"),
        ({"answer": m.SILENT, "symptom": m.HANGS}, {}, "unhealthy", "Hanging", "it hangs"),
        ({"symptom": m.TOO_LARGE}, {}, "unhealthy", "MemoryLimit", "over its memory"),
        ({"cold": True}, {}, "starting", "WarmingUp", "its warm-up job has not finished yet"),
        ({"cold": True, "state": m.state(m.app(age=61))}, {}, "unhealthy", "WarmupTimeout", "its"),
        ({"cold": True, "warmup": m.trial(ok=False, reason="no luck")}, {}, "unhealthy",
         "WarmupFailed", "its warm-up job failed: no luck"),
        ({"warmup": m.trial(ok=False), "canary": m.trial(ok=True)}, {}, "healthy", "Healthy", ""),
        ({"canary": m.trial(ok=False, reason="no image")}, {}, "unhealthy", "CanaryFailed", "no i"),
        ({"canary": m.trial(ok=False, reason="no model", refused=True)}, {}, "degraded",
         "CanaryRefused", "no model"),
        ({"failed_nodes": {"needed": "doesn't import: E"}}, {}, "unhealthy", "NodeFailed",
         "custom node needed doesn't import: E"),
        ({"failed_nodes": {"extra": "ends ComfyUI"}}, {}, "degraded", "OptionalNodeFailed",
         "custom node extra (optional) ends ComfyUI"),
        ({"failed_nodes": {"needed": "E"}}, {"ignored": {"needed"}}, "healthy", "Healthy", ""),
        ({"classes": frozenset()}, {}, "unhealthy", "NodeClassMissing",
         "custom node needed lacks Here, which it had in the build"),
        ({"classes": frozenset()}, {"ignored": {"needed"}}, "degraded", "OptionalNodeFailed",
         "custom node extra (optional) lacks Here, which it had in the build"),
        ({"classes": None}, {}, "healthy", "Healthy", ""),
        ({"classes": None}, {"lists_classes": True}, "starting", "NodesNotListed", "it has not"),
        ({"folders": ["/a"]}, {"folders": {"a": "/a", "b": "/b"}}, "unhealthy",
         "ModelFolderUnused", "it doesn't look for models in b"),
        ({}, {"folders": {"b": "/b"}}, "healthy", "Healthy", ""),
        ({"unlisted": ["loras/a.pt"]}, {}, "degraded", "ModelNotListed",
         "it doesn't list loras/a.pt"),
        ({"unlisted": ["a", "b", "c"]}, {}, "degraded", "ModelNotListed",
         "it doesn't list a, nor 2 more"),
        ({"unlisted": ["a"], "state": m.state(None)}, {}, "down", "NotStarted", "not started"),
        ({"draining": True}, {}, "draining", "Draining", "it takes no new jobs"),
        ({"draining": True, "answer": m.SILENT}, {}, "unhealthy", "NoAnswer", "no answer"),
        ({"draining": True, "unlisted": ["a"]}, {}, "draining", "Draining", "it takes no new"),
        ({"state": m.state(m.app(supervised=False))}, {}, "degraded", "NotSupervised", "PM2 does"),
        ({"age": 121.0}, {}, "unknown", "NotObserved", "it was last observed 121 s ago"),
    ],
)  # fmt: skip
def test_each_observation_has_its_condition(
    observed: dict[str, Any], rules: dict[str, Any], health: str, code: str, message: str
) -> None:
    found = condition.ready(judged(replace(RULES, **rules), **observed))
    assert (found.health, found.reason) == (health, code)
    assert found.message.startswith(message)
    assert (found.message == "") is (found.reason == "Healthy")


def test_all_that_is_wrong_is_said_the_worst_first() -> None:
    found = judged(
        failed_nodes={"needed": "E", "extra": "E"}, unlisted=["a"], draining=True,
        state=m.state(m.app(supervised=False)), canary=m.trial(ok=False, reason="no image"),
    )  # fmt: skip
    assert [each.reason for each in found] == [
        "NodeFailed", "CanaryFailed", "Draining", "NotSupervised", "OptionalNodeFailed",
        "ModelNotListed",
    ]  # fmt: skip
    assert {each.observed for each in found} == {"f"}, "of the process that runs"
    assert {each.status for each in found} == {"False"}


def test_the_watcher_is_named_where_it_will_act() -> None:
    (alone,) = judged(symptom=m.HANGS)
    (watched,) = judged(replace(RULES, restarts=True), symptom=m.HANGS)
    assert alone.advice == "doit restart comfyui-gpu0"
    assert watched.advice.startswith("the watcher restarts it")


def test_how_it_ended_is_the_message_with_the_line_that_says_why() -> None:
    (down, functional) = judged(state=m.state(None, None, m.RAISED))
    why = "it exited with code 1: comfyui-gpu0.log:2: ValueError: no luck"
    assert (down.reason, down.message) == ("Exited", why)
    assert (functional.type, functional.message) == ("Functional", "comfyui-gpu0 doesn't run")


def test_whatever_is_not_healthy_has_a_message_and_an_advice() -> None:
    states = [m.state(None), m.state(None, LOOPS), m.state(m.app()), m.state(m.app(age=99))]
    for state, answer, symptom, cold, unlisted in itertools.product(
        states, (m.ANSWERS, m.REFUSES, m.SILENT), (None, m.HANGS), (False, True), ([], ["a"])
    ):
        observation: dict[str, Any] = {"answer": answer, "symptom": symptom, "cold": cold}
        for each in judged(state=state, unlisted=unlisted, **observation):
            assert each.message, each
            assert each.advice, each
            assert each.reason != "Healthy"


def test_a_code_of_another_version_is_unspecified() -> None:
    assert condition.reason("MemoryLimit") == "MemoryLimit"
    assert set(map(condition.reason, ("Other", None, [], 5))) == {"Unspecified"}
