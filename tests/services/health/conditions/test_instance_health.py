"""What is made of what was seen of an instance."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tasks.services.health.conditions import instance_health
from tasks.services.health.model.answers import HEALTHY, InstanceHealth, Task, Trial
from tasks.services.health.model.facts import Facts
from tasks.services.health.model.sample import Sample
from tests.services import moments as m

LOOPS = {"status": "errored", "restart_time": 4}
WARMED = Trial(ok=True, at=1.0)
KILLED = m.INSTALLS.model_copy(update={"state": "interrupted"})
BUILDS = m.run("running", Task(name="environment", state="running"))


def judge(sample: Sample | None = None, facts: Facts | None = None) -> InstanceHealth:
    return instance_health.judge(m.GPU0, sample or m.sample(), facts or m.facts(), now=0.0)


def test_one_that_is_well_says_no_more() -> None:
    told = judge()
    assert (told.status, told.reason, told.advice) == ("healthy", "", "")
    assert (told.port, told.layers.running.pid) == (8188, 4100)
    assert all(getattr(told.layers, name).ok for name in type(told.layers).model_fields)


@pytest.mark.parametrize(
    ("sample", "facts", "status", "reason"),
    [
        ({"seen": m.seen(None)}, {}, "down", "not started"),
        ({"seen": m.seen(None)}, {"run": m.INSTALLS}, "starting", "the run that is on starts it"),
        ({"seen": m.seen(None)}, {"run": BUILDS}, "down", "not started"),
        ({"seen": m.seen(None)}, {"run": m.FAILED}, "down", "not started"),
        ({"seen": m.seen(None)}, {"run": KILLED}, "down", "not started"),
        ({"seen": m.seen(None, LOOPS)}, {}, "crash loop", "it ended without a word"),
        ({"seen": m.seen(None, LOOPS)}, {"run": m.INSTALLS}, "crash loop", "it ended without"),
        ({"seen": m.seen(m.app(), LOOPS), "health": m.REFUSES}, {}, "crash loop", "it ended"),
        ({"health": m.REFUSES}, {}, "starting", "nothing answers on port"),
        ({"health": m.REFUSES, "seen": m.seen(m.app(age=61))}, {}, "unhealthy", "nothing answers"),
        ({"health": m.SILENT}, {}, "unhealthy", "no answer from port"),
        ({"health": m.SILENT, "trouble": "it hangs"}, {}, "unhealthy", "it hangs"),
        ({"health": m.WRONG}, {}, "unhealthy", "it answers with code 500"),
        ({"watched": "it is over its memory"}, {}, "unhealthy", "it is over its memory"),
        ({"trouble": "its worker thread is dead"}, {}, "unhealthy", "its worker thread is dead"),
        ({"cold": ("starting", "not warm")}, {}, "starting", "not warm"),
        ({"cold": ("unhealthy", "its warm-up failed")}, {}, "unhealthy", "its warm-up failed"),
        ({"canary": Trial(ok=False, at=1, reason="no image")}, {}, "unhealthy", "no image"),
        ({"canary": WARMED, "warmup": WARMED}, {}, "healthy", ""),
        ({"failed_nodes": {"needed": "doesn't import: E: x"}}, {}, "unhealthy",
         "custom node needed doesn't import: E: x"),
        ({"failed_nodes": {"extra": "ends ComfyUI"}}, {}, "degraded",
         "custom node extra (optional) ends ComfyUI"),
        ({"classes": frozenset()}, {}, "unhealthy", "custom node needed lacks Here"),
        ({"classes": None}, {}, "healthy", ""),
        ({"classes": None}, {"installed": m.installed("no")}, "starting", "it has not said which"),
        ({}, {"installed": m.installed("another commit")}, "healthy", ""),
        ({}, {"models": None}, "unhealthy", "the disk has not answered yet"),
        ({}, {"models": m.models(m.NO_MODEL)}, "unhealthy", "checkpoints/a.safetensors: it isn't"),
        ({}, {"models": m.models(m.NO_MODEL), "run": m.INSTALLS}, "installing", "checkpoints/a"),
        ({}, {"models": m.models(m.NO_OPTION)}, "degraded", "loras/b.safetensors (optional): it"),
        ({"listed": {"checkpoints": []}}, {"models": m.models(m.MODEL)}, "unhealthy",
         "checkpoints/a.safetensors: the instance doesn't list it"),
        ({"draining": True}, {}, "draining", "it takes no new jobs"),
        ({"draining": True, "health": m.SILENT}, {}, "unhealthy", "no answer"),
        ({"seen": m.seen(m.app(supervised=False))}, {}, "degraded", "PM2 doesn't hold it"),
    ],
)  # fmt: skip
def test_each_kind_of_trouble_has_its_status(
    sample: dict[str, Any], facts: dict[str, Any], status: str, reason: str
) -> None:
    told = judge(m.sample(**sample), m.facts(**facts))
    assert told.status == status
    assert told.reason.startswith(reason) if reason else told.reason == ""


def test_a_node_that_is_not_to_be_loaded_is_no_trouble() -> None:
    sample = m.sample(failed_nodes={"needed": "doesn't import: E: x"}, classes=frozenset())
    chosen = m.facts(settings=m.settings(selected=()))
    assert judge(sample, chosen).status == "healthy"
    by_hand = m.sample(failed_nodes={"by-hand": "E: x"})
    assert judge(by_hand, chosen).status == "degraded"


def test_a_worker_says_what_it_waits_for() -> None:
    away = m.facts(workers={"fetch-gpu0": m.seen(None)})

    def told(**changes: Any) -> tuple[list[str], str]:
        sample = m.sample(**changes.pop("sample", {}))
        (worker,) = judge(sample, replace(away, **changes)).workers
        assert not worker.running
        return worker.waits_for, worker.reason

    assert told() == ([], "not started")
    assert told(run=m.INSTALLS) == (["doit"], "the run starts it")
    assert told(sample={"health": m.REFUSES}) == (
        ["comfyui-gpu0"], "comfyui-gpu0 is starting: nothing answers on port 8188",
    )  # fmt: skip
    (runs,) = judge().workers
    assert (runs.running, runs.pid, runs.waits_for, runs.reason) == (True, 4100, [], "")


def every(tmp_path: Path) -> Iterator[tuple[Sample, Facts]]:
    """Each combination of what may be seen, as far as it differs."""
    log = tmp_path / "comfyui-gpu0.log"
    log.write_text("Traceback (most recent call last):\nValueError: no luck\n")
    for processes in (
        m.seen(None), m.seen(None, LOOPS, log), m.seen(m.app()), m.seen(m.app(age=100), LOOPS),
        m.seen(m.app(supervised=False)),
    ):  # fmt: skip
        samples = [
            m.sample(
                seen=processes, health=health, trouble=trouble, watched=watched, cold=cold,
                classes=classes, draining=draining, failed_nodes=failed,
            )
            for health in (m.ANSWERS, m.REFUSES, m.SILENT)
            for trouble in ("", "it hangs")
            for watched in ("", "over its memory")
            for cold in (None, ("starting", "not warm"))
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


def test_whatever_is_seen_less_than_healthy_has_a_reason_and_an_advice(tmp_path: Path) -> None:
    seen = set()
    for sample, facts in every(tmp_path):
        told = judge(sample, facts)
        seen.add(told.status)
        well = told.status == "healthy"
        assert bool(told.reason) is not well, (sample, facts)
        assert well or told.advice, (sample, facts)
        layers = told.layers
        if told.status in HEALTHY:
            assert layers.running.pid
            assert layers.functional.ok
            assert layers.models.ok
        for layer in (layers.installed, layers.running, layers.functional, layers.models):
            assert bool(layer.reason) is not layer.ok, (sample, facts)
        if sample.cold or sample.trouble or sample.watched or not sample.health.healthy:
            assert not layers.functional.ok
        if told.status == "draining":
            assert layers.functional.ok, "the worse is said first"
        for worker in told.workers:
            assert worker.running or worker.reason
    assert seen == {
        "healthy", "degraded", "starting", "installing", "draining", "unhealthy", "crash loop",
        "down",
    }  # fmt: skip
