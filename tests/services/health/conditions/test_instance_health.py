"""The health of an instance as it is answered: its layers, its conditions, its workers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, get_args

import pytest

from comfy_machine.host.comfyui.condition import HEALTHY, InstanceType
from comfy_machine.host.generations.installed import WantedNode
from comfy_machine.services.health.conditions import instance_health
from comfy_machine.services.health.model.answers import InstanceHealth
from comfy_machine.services.health.model.facts import Facts, Sample
from tests.services import moments as m

LOOPS = {"status": "errored", "restart_time": 4}
KILLED = replace(m.INSTALLS, state="interrupted")
BUILDS = m.run("running", m.task("environment", "running"))


def assess(sample: Sample | None = None, facts: Facts | None = None) -> InstanceHealth:
    return instance_health.assess(m.GPU0, sample or m.sample(), facts or m.facts(), now=0.0)


def test_one_that_is_well_says_no_more() -> None:
    told = assess()
    assert (told.status, told.code, told.reason, told.advice) == (
        "healthy",
        "Healthy",
        "",
        "",
    )
    assert (told.port, told.layers.running.pid) == (8188, 4100)
    assert all(getattr(told.layers, name).ok for name in type(told.layers).model_fields)
    assert [each.type for each in told.conditions] == list(get_args(InstanceType))
    assert {(each.status, each.observed) for each in told.conditions} == {("True", "f")}


@pytest.mark.parametrize(
    ("sample", "facts", "status", "code"),
    [
        ({"state": m.state(None)}, {"run": m.INSTALLS}, "starting", "AwaitsRun"),
        ({"state": m.state(None)}, {"run": BUILDS}, "down", "NotStarted"),
        ({"state": m.state(None)}, {"run": m.FAILED}, "down", "NotStarted"),
        ({"state": m.state(None)}, {"run": KILLED}, "down", "NotStarted"),
        ({"failed_nodes": {"needed": "doesn't import: E: x"}}, {}, "unhealthy", "NodeFailed"),
        ({"failed_nodes": {"extra": "ends ComfyUI"}}, {}, "degraded", "OptionalNodeFailed"),
        ({"classes": frozenset()}, {}, "unhealthy", "NodeClassMissing"),
        ({"classes": None}, {}, "healthy", "Healthy"),
        ({"classes": None}, {"installed": m.installed("no")}, "healthy", "Healthy"),
        ({"classes": None}, {"run": m.INSTALLS}, "starting", "NodesNotListed"),
        ({"classes": None, "passed": True}, {"run": m.INSTALLS}, "healthy", "Healthy"),
        ({}, {"installed": m.installed("another commit")}, "healthy", "Healthy"),
        ({}, {"models": None}, "healthy", "Healthy"),
        ({}, {"models": m.models(m.NO_MODEL)}, "healthy", "Healthy"),
        ({"listed": {"checkpoints": []}}, {"models": m.models(m.NO_MODEL)}, "healthy", "Healthy"),
        ({"listed": {"checkpoints": []}}, {"models": m.models(m.MODEL)}, "degraded",
         "ModelNotListed"),
    ],
)  # fmt: skip
def test_what_the_server_knows_beside_the_process_is_judged_too(
    sample: dict[str, Any], facts: dict[str, Any], status: str, code: str
) -> None:
    told = assess(m.sample(**sample), m.facts(**facts))
    assert (told.status, told.code) == (status, code)


def test_its_conditions_say_what_is_false_and_since_when_it_is_so() -> None:
    told = assess(m.sample(draining=True, failed_nodes={"extra": "ends ComfyUI"}))
    found = {each.type: each for each in told.conditions}
    assert {kind for kind, each in found.items() if each.status == "False"} == {
        "Ready", "AcceptsJobs", "Complete",
    }  # fmt: skip
    assert found["Ready"].reason == found["AcceptsJobs"].reason == told.code
    assert found["Complete"].message == "custom node extra (optional) ends ComfyUI"
    assert told.layers.functional.ok


def test_a_node_that_is_not_to_be_loaded_is_no_trouble() -> None:
    chosen = replace(m.BUILD, selected=frozenset[str]())
    failed = {"needed": "doesn't import: E: x"}
    assert assess(m.sample(failed_nodes=failed, classes=frozenset(), build=chosen)).status == (
        "healthy"
    )
    by_hand = m.sample(failed_nodes={"by-hand": "E: x"}, build=chosen)
    assert assess(by_hand).status == "degraded"


def test_what_machine_yaml_asks_for_since_its_start_it_need_not_have() -> None:
    later = replace(m.BUILD, classes={"needed": ["Here"]})
    more = m.facts(settings=m.settings(nodes=(*m.NODES, WantedNode("new", url="u"))))
    assert assess(m.sample(build=later), more).status == "healthy"
    chosen = m.facts(settings=m.settings(selected=()))
    lacks = m.sample(classes=frozenset())
    assert assess(lacks, chosen).code == "NodeClassMissing", "it was started with all of them"
    broken = replace(m.BUILD, failed=frozenset({"needed"}))
    told = assess(m.sample(failed_nodes={"needed": "E: x"}, build=broken))
    assert told.status == "degraded", "it was optional when this was built"


def test_a_worker_says_what_it_waits_for() -> None:
    away = m.facts(workers={"fetch-gpu0": m.state(None)})

    def told(**changes: Any) -> tuple[list[str], str]:
        sample = m.sample(**changes.pop("sample", {}))
        (worker,) = assess(sample, replace(away, **changes)).workers
        assert not worker.running
        return worker.waits_for, worker.reason

    assert told() == ([], "not started")
    assert told(run=m.INSTALLS) == (["doit"], "the run starts it")
    assert told(sample={"answer": m.REFUSES}) == (
        ["comfyui-gpu0"], "comfyui-gpu0 is starting: nothing answers on port 8188",
    )  # fmt: skip
    (runs,) = assess().workers
    assert (runs.running, runs.pid, runs.waits_for, runs.reason) == (True, 4100, [], "")


def every() -> Iterator[tuple[Sample, Facts]]:
    """Each combination of what may be seen, as far as it differs."""
    for processes in (
        m.state(None), m.state(None, LOOPS, m.RAISED), m.state(m.app()),
        m.state(m.app(age=100), LOOPS), m.state(m.app(supervised=False)),
    ):  # fmt: skip
        samples = [
            m.sample(
                state=processes, answer=health, symptom=symptom, cold=cold,
                classes=classes, draining=draining, failed_nodes=failed,
            )
            for health in (m.ANSWERS, m.REFUSES, m.SILENT)
            for symptom in (None, m.HANGS)
            for cold in (False, True)
            for classes in (None, frozenset[str](), frozenset({"Here"}))
            for draining in (False, True)
            for failed in ({}, {"extra": "E: x"})
        ]  # fmt: skip
        machines = [
            m.facts(installed=installed, models=models, run=run)
            for installed in (m.installed(), m.installed("no"))
            for models in (None, {}, m.models(m.NO_MODEL), m.models(m.NO_OPTION))
            for run in (None, m.INSTALLS)
        ]
        yield from itertools.product(samples, machines)


def test_whatever_is_seen_less_than_healthy_has_a_reason_and_an_advice() -> None:
    statuses = set()
    for sample, facts in every():
        told = assess(sample, facts)
        statuses.add(told.status)
        well = told.status == "healthy"
        assert bool(told.reason) is not well, (sample, facts)
        assert well or told.advice, (sample, facts)
        layers = told.layers
        if told.status in HEALTHY:
            assert layers.running.pid
            assert layers.functional.ok
        for layer in (layers.installed, layers.running, layers.functional, layers.models):
            assert bool(layer.reason) is not layer.ok, (sample, facts)
        assert (told.conditions[0].status == "True") is (told.status in HEALTHY)
        observation = sample.observation
        if observation.cold or observation.symptom or not observation.answer.healthy:
            assert not layers.functional.ok
        if told.status == "draining":
            assert layers.functional.ok, "the worse is said first"
        for worker in told.workers:
            assert worker.running or worker.reason
    assert statuses == {
        "healthy", "degraded", "starting", "draining", "unhealthy", "crash loop", "down",
    }  # fmt: skip
