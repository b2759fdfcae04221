"""What is made of what was seen of the machine: of what is installed, and of all together."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest

from tasks.host.comfyui.condition import HEALTHY, Condition, Health, healthy
from tasks.services.health.conditions import instance_health, machine_health
from tasks.services.health.model.answers import InstanceHealth, Service
from tasks.services.health.model.facts import Facts
from tests.services import moments as m

BROKEN = m.installed("custom node x: it isn't in the current generation")
NOTHING = replace(m.installed("nothing is installed yet"), generation=None)
HALF = m.installed(degraded=("custom node extra (optional): it is left out",))


@pytest.mark.parametrize(
    ("facts", "status", "reason"),
    [
        ({}, "healthy", ""),
        ({"run": m.SUCCEEDED}, "healthy", ""),
        ({"run": m.INSTALLS}, "healthy", ""),
        ({"run": m.INSTALLS, "installed": NOTHING}, "installing", "environment"),
        ({"run": m.run("running"), "installed": NOTHING}, "installing", "the run is starting"),
        ({"run": m.FAILED}, "degraded", "the last run failed: nodes:x: no such commit"),
        ({"run": m.FAILED, "installed": BROKEN}, "failed", "the last run failed: nodes:x: no"),
        ({"run": m.run("failed"), "installed": BROKEN}, "failed", "the last run failed"),
        ({"run": m.INTERRUPTED}, "degraded", "the last run was interrupted, at mod"),
        ({"run": m.INTERRUPTED, "installed": NOTHING}, "interrupted", "the last run was interr"),
        ({"run": m.SUCCEEDED, "installed": BROKEN}, "unhealthy", "custom node x: it isn't in"),
        ({"installed": NOTHING}, "unhealthy", "nothing is installed yet"),
        ({"installed": HALF}, "degraded", "custom node extra (optional): it is left out"),
        ({"installed": HALF, "run": m.FAILED}, "degraded", "the last run failed: nodes:x"),
        ({"behind": "gpu0 did not come up", "installed": BROKEN, "run": m.FAILED}, "degraded",
         "behind machine.yaml: gpu0 did not come up"),
        ({"behind": "left by hand"}, "degraded", "behind machine.yaml: left by hand"),
        ({"behind": "x", "installed": NOTHING}, "unhealthy", "nothing is installed yet"),
    ],
)  # fmt: skip
def test_an_installation_is_as_well_as_the_disk_says_and_the_run_says_why(
    facts: dict[str, Any], status: str, reason: str
) -> None:
    told = machine_health.installation(m.facts(**facts))
    assert told.health == status
    assert told.message.startswith(reason) if reason else told.message == ""


def test_models_are_healthy_when_none_is_declared_or_all_are_there() -> None:
    def told(*states: Any, run: Any = None) -> tuple[str, str]:
        judged = machine_health.models(m.facts(models=m.models(*states), run=run))
        return judged.health, judged.message

    assert told() == ("healthy", "")
    assert told(m.MODEL) == ("healthy", "")
    assert told(m.MODEL, m.NO_OPTION) == (
        "degraded", "loras/b.safetensors (optional): it isn't there",
    )  # fmt: skip
    missing = "checkpoints/a.safetensors: it isn't there"
    assert told(m.NO_OPTION, m.NO_MODEL) == ("degraded", missing)
    assert told(m.NO_OPTION, m.NO_MODEL, run=m.FETCHES) == ("progressing", missing)
    assert told(m.NO_MODEL, run=m.INSTALLS) == ("degraded", missing), "it brings no models"
    assert machine_health.models(m.facts(models=None)).health == "degraded"


def instance(status: Health, gpu: int = 0, *, worker: bool = True) -> InstanceHealth:
    judged = instance_health.assess(m.GPU0, m.sample(), m.facts(), 0.0)
    why = "" if status == "healthy" else "this"
    service = Service(name=f"fetch-gpu{gpu}", running=worker, reason="" if worker else "no broker")
    return judged.model_copy(
        update={
            "status": status, "reason": why, "advice": why and "do that", "gpu": gpu,
            "name": f"comfyui-gpu{gpu}", "workers": [service],
        }
    )  # fmt: skip


def overall(facts: Facts, *instances: InstanceHealth) -> Condition:
    return machine_health.overall(
        facts, instances, machine_health.installation(facts), machine_health.models(facts)
    )


def test_the_instances_are_as_the_worst_of_them() -> None:
    order: list[Health] = [
        "crash loop", "down", "unhealthy", "unknown", "installing", "starting", "draining",
        "degraded", "healthy",
    ]  # fmt: skip
    for first, second in itertools.combinations(order, 2):
        both = [instance(second, 0), instance(first, 1)]
        told = machine_health.together(both, healthy())
        assert (told.health, told.advice) == (first, "do that")
        assert told.message == f"comfyui-gpu1 is {first}: this"
    more = machine_health.together([instance("down", gpu) for gpu in range(3)], healthy())
    assert more.message == "comfyui-gpu0 is down: this (and 2 more)"
    assert machine_health.together([], more) is more


@pytest.mark.parametrize(
    ("facts", "instances", "status", "reason"),
    [
        ({}, ["healthy"], "healthy", ""),
        ({}, ["healthy", "degraded"], "degraded", "comfyui-gpu1 is degraded: this"),
        ({}, ["healthy", "down"], "down", "comfyui-gpu1 is down: this"),
        ({}, [], "unhealthy", "no instances: instances.gpus is auto, and there is no GPU here"),
        ({"run": m.FAILED}, ["healthy"], "degraded", "the last run failed"),
        (
            {"run": m.FAILED},
            ["down"],
            "down",
            "the last run failed: nodes:x: no such commit; comfy",
        ),
        ({"installed": NOTHING, "run": m.INSTALLS}, ["starting"], "installing", "environment"),
        ({"installed": NOTHING, "run": m.INSTALLS}, [], "installing", "environment"),
        ({"installed": NOTHING, "run": m.FAILED}, ["down"], "failed", "the last run failed"),
        ({"installed": BROKEN}, ["healthy"], "degraded", "custom node x"),
        ({"installed": BROKEN, "run": m.INSTALLS}, ["healthy"], "degraded", "environment"),
        ({"installed": BROKEN, "run": m.INSTALLS}, ["starting"], "installing", "environment"),
        ({"installed": BROKEN, "run": m.FAILED}, ["down"], "failed", "the last run failed"),
        ({"installed": BROKEN, "run": m.FAILED}, ["unhealthy"], "unhealthy", "comfyui-gpu0 is"),
        ({"behind": "x", "installed": BROKEN}, ["healthy"], "degraded", "behind machine.yaml: x"),
        ({"behind": "x"}, ["down"], "down", "comfyui-gpu0 is down"),
        ({"models": m.models(m.NO_MODEL)}, ["healthy"], "degraded", "checkpoints/a"),
        ({"models": m.models(m.NO_MODEL), "run": m.FETCHES}, ["healthy"], "progressing", "check"),
        (
            {"models": m.models(m.NO_OPTION)},
            ["healthy"],
            "degraded",
            "loras/b.safetensors (optional)",
        ),
        ({"models": None}, ["healthy"], "degraded", "the disk has not answered yet"),
        ({"installed": HALF}, ["healthy"], "degraded", "custom node extra (optional)"),
        ({"settings": m.settings(enabled=False), "run": m.FAILED}, [], "disabled", "ENABLE_COMF"),
        ({"settings": m.settings(enabled=False), "installed": NOTHING}, [], "disabled", "ENABLE"),
    ],
)
def test_the_machine_is_as_well_as_the_worst_of_what_it_needs(
    facts: dict[str, Any], instances: list[Health], status: str, reason: str
) -> None:
    told = overall(m.facts(**facts), *map(instance, instances, range(2)))
    assert told.health == status
    assert told.message.startswith(reason) if reason else told.message == ""


def test_a_worker_that_does_not_run_degrades_the_machine() -> None:
    told = overall(m.facts(), instance("healthy"), instance("healthy", 1, worker=False))
    assert (told.health, told.advice) == ("degraded", "run doit")
    assert told.message == "fetch-gpu1 doesn't run: no broker"
    assert overall(m.facts(), instance("down", worker=False)).health == "down"


def test_whatever_is_seen_less_than_healthy_has_a_reason_and_an_advice() -> None:
    seen = set()
    for installed, models, run, behind, enabled in itertools.product(
        (m.installed(), BROKEN, NOTHING, HALF),
        ({}, None, m.models(m.NO_MODEL), m.models(m.NO_OPTION)),
        (None, m.INSTALLS, m.FETCHES, m.FAILED, m.INTERRUPTED, m.SUCCEEDED, m.run("failed")),
        ("", "left by hand"),
        (True, False),
    ):
        facts = m.facts(
            installed=installed, models=models, run=run, behind=behind,
            settings=m.settings(enabled=enabled),
        )  # fmt: skip
        told = [machine_health.installation(facts), machine_health.models(facts), overall(facts)]
        told += [
            overall(facts, instance(status)) for status in (*machine_health.WORST_FIRST, "healthy")
        ]
        for each in told:
            assert bool(each.message) is not (each.health == "healthy"), (each, facts)
            assert each.health == "healthy" or each.advice, (each, facts)
        seen |= {each.health for each in told}
        assert enabled or all(each.health == "disabled" for each in told[2:])
        if machine_health.installation(facts).health not in HEALTHY and enabled:
            made = facts.installed.generation is not None
            assert told[-1].health in HEALTHY or not made, "it serves all the same"
    assert seen == {
        "healthy", "progressing", "degraded", "disabled", "starting", "installing", "draining",
        "unhealthy", "crash loop", "down", "failed", "interrupted", "unknown",
    }  # fmt: skip
