"""What is made of what was seen of the machine: what serves, what comes, what failed to come."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from comfy_machine.host.comfyui import machine_condition
from comfy_machine.host.comfyui.condition import HEALTHY, Condition, Health, Reason, healthy
from comfy_machine.host.comfyui.machine_condition import Installation, MachineObservation
from tests.services import moments as m

WHOLE = Installation("abc")
BROKEN = Installation("abc", "custom node x: it isn't in the current generation")
NOTHING = Installation(None, "nothing is installed yet")
HALF = Installation("abc", lesser=["custom node extra: it is left out"])
GONE = {"checkpoints/a.safetensors": "it isn't there"}
EXTRA = {"loras/b.safetensors": "it isn't there"}
OPTIONAL = frozenset(EXTRA)
FALLEN = m.run("failed", m.task("models", "failed", "loras/c.pt: the server answers 404"))
CODES: dict[Health, Reason] = {"starting": "AwaitsRun", "down": "NotStarted"}


def instance(health: Health) -> Condition:
    if health == "healthy":
        return healthy()
    return Condition("Ready", health, CODES.get(health, "NoAnswer"), "this", "do that")


def observation(*instances: Health, **changes: Any) -> MachineObservation:
    """A machine on which all is as wanted, but for the changes."""
    every = {f"comfyui-gpu{gpu}": instance(each) for gpu, each in enumerate(instances)}
    usual: dict[str, Any] = {"enabled": True, "instances": every, "installation": WHOLE}
    return MachineObservation(**usual | {"optional": OPTIONAL} | changes)


@pytest.mark.parametrize(
    ("changes", "health", "message"),
    [
        ({}, "healthy", ""),
        ({"run": m.SUCCEEDED}, "healthy", ""),
        ({"run": m.INSTALLS}, "healthy", ""),
        ({"run": m.INSTALLS, "installation": NOTHING}, "installing", "environment"),
        ({"run": m.run("running"), "installation": NOTHING}, "installing", "the run is starting"),
        ({"run": m.INSTALLS, "installation": BROKEN}, "progressing", "environment"),
        ({"run": m.FAILED}, "degraded", "the last run failed: nodes:x: no such commit"),
        ({"run": m.FAILED, "installation": BROKEN}, "degraded", "the last run failed: nodes:x: no"),
        ({"run": m.FAILED, "installation": NOTHING}, "failed", "the last run failed: nodes:x: no"),
        ({"run": m.run("failed"), "installation": NOTHING}, "failed", "the last run failed"),
        ({"run": m.INTERRUPTED}, "degraded", "the last run was interrupted, at mod"),
        ({"run": m.INTERRUPTED, "installation": NOTHING}, "interrupted", "the last run was interr"),
        ({"run": m.SUCCEEDED, "installation": BROKEN}, "degraded", "custom node x: it isn't in"),
        ({"installation": NOTHING}, "unhealthy", "nothing is installed yet"),
        ({"installation": HALF}, "degraded", "custom node extra: it is left out"),
        ({"installation": HALF, "run": m.FAILED}, "degraded", "the last run failed: nodes:x"),
        ({"behind": "gpu0 did not come up", "installation": BROKEN, "run": m.FAILED}, "degraded",
         "behind machine.yaml: gpu0 did not come up"),
        ({"behind": "left by hand"}, "degraded", "behind machine.yaml: left by hand"),
        ({"behind": "x", "installation": NOTHING}, "unhealthy", "nothing is installed yet"),
    ],
)  # fmt: skip
def test_an_installation_is_as_well_as_the_disk_says_and_the_run_says_why(
    changes: dict[str, Any], health: str, message: str
) -> None:
    told = machine_condition.installation(observation("healthy", **changes))
    assert told.health == health
    assert told.message.startswith(message) if message else told.message == ""


def test_models_are_healthy_when_none_is_missing_and_progress_while_a_run_brings_them() -> None:
    def told(missing: dict[str, str] | None, run: Any = None) -> tuple[str, str, str]:
        judged = machine_condition.models(observation(missing=missing, run=run))
        return judged.type, judged.reason, judged.message

    assert told({}) == ("Degraded", "Healthy", "")
    assert told(EXTRA) == (
        "Degraded", "OptionalModelMissing", "loras/b.safetensors (optional): it isn't there",
    )  # fmt: skip
    why = "checkpoints/a.safetensors: it isn't there"
    assert told(EXTRA | GONE) == ("Degraded", "ModelMissing", why)
    assert told(GONE, m.INSTALLS) == ("Degraded", "ModelMissing", why), "that brings no models"
    coming = "the run brings checkpoints/a.safetensors"
    assert told(GONE, m.FETCHES) == ("Progressing", "ModelMissing", coming)
    assert told(GONE | {"d": "no"}, m.FETCHES)[2] == f"{coming} (and 1 more)"
    assert told(None)[1] == "ModelsUnknown"


@pytest.mark.parametrize(
    ("changes", "progressing", "degraded"),
    [
        ({}, [], []),
        ({"missing": GONE, "run": m.FETCHES}, ["ModelMissing"], []),
        ({"missing": GONE | EXTRA, "run": m.FETCHES}, ["ModelMissing", "OptionalModelMissing"], []),
        ({"missing": GONE, "run": FALLEN}, [], ["RunFailed", "ModelMissing"]),
        ({"missing": GONE, "run": m.INTERRUPTED}, [], ["RunInterrupted", "ModelMissing"]),
        ({"missing": GONE, "run": m.SUCCEEDED}, [], ["ModelMissing"]),
        ({"installation": BROKEN, "run": m.SUCCEEDED}, [], ["NotApplied"]),
        ({"installation": BROKEN, "run": m.INSTALLS}, ["Installing"], []),
        ({"idle_workers": {"fetch-gpu0": "no broker"}}, [], ["WorkerDown"]),
        ({"idle_workers": {"fetch-gpu0": "x"}, "run": m.INSTALLS}, ["WorkerDown"], []),
        ({"faulty_jobs": {"comfyui-gateway": "it doesn't run"}}, [], ["JobsDown"]),
        ({"faulty_jobs": {"comfyui-gateway": "it doesn't run"},
          "run": m.run("running", m.task("jobs:gateway", "waiting"))}, ["JobsDown"], []),
        ({"full": ["no space is left on the disk of /ws"]}, [], ["DiskFull"]),
        ({"behind": "x", "missing": EXTRA, "installation": HALF}, [],
         ["BehindMachineFile", "OptionalPartMissing", "OptionalModelMissing"]),
    ],
)  # fmt: skip
def test_what_serves_stays_available_whatever_is_to_come_or_failed_to(
    changes: dict[str, Any], progressing: list[str], degraded: list[str]
) -> None:
    now = observation("healthy", observed="d1", **changes)
    found = machine_condition.judge(now)
    assert {each.observed for each in found} == {"d1"}
    assert found[0] == machine_condition.judge(observation("healthy", observed="d1"))[0]
    assert (found[0].type, found[0].status) == ("Available", "True")
    for kind, reasons in (("Progressing", progressing), ("Degraded", degraded)):
        these = [each for each in found if each.type == kind]
        assert [each.reason for each in these] == (reasons or ["Healthy"])
        assert {each.status for each in these} == {"True" if reasons else "False"}
    wanted = "degraded" if degraded else "progressing" if progressing else "healthy"
    assert machine_condition.ready(now).health == wanted


def test_the_instances_are_as_the_worst_of_them_and_degraded_while_one_serves() -> None:
    order: list[Health] = [
        "crash loop", "down", "unhealthy", "unknown", "installing", "starting", "draining",
        "degraded", "healthy",
    ]  # fmt: skip
    for first, second in itertools.combinations(order, 2):
        both = observation(second, first).instances
        told = machine_condition.of_instances(both, healthy())
        assert (told.health, told.advice) == (
            first if second not in HEALTHY else "degraded",
            "do that",
        )
        shown = "in a crash loop" if first == "crash loop" else first
        assert told.message == f"comfyui-gpu1 is {shown}: this"
    three = machine_condition.of_instances(observation("down", "down", "down").instances, healthy())
    assert three.message == "comfyui-gpu0 is down: this (and 2 more)"
    assert machine_condition.of_instances({}, three) is three


@pytest.mark.parametrize(
    ("changes", "instances", "health", "message"),
    [
        ({}, ["healthy"], "healthy", ""),
        ({}, ["healthy", "degraded"], "degraded", "comfyui-gpu1 is degraded: this"),
        ({}, ["healthy", "down"], "degraded", "comfyui-gpu1 is down: this"),
        ({}, ["healthy", "starting"], "degraded", "comfyui-gpu1 is starting: this"),
        ({}, ["down", "crash loop"], "unhealthy", "comfyui-gpu1 is in a crash loop: this"),
        ({}, ["starting", "down"], "unhealthy", "comfyui-gpu1 is down: this"),
        ({}, ["starting"], "starting", "comfyui-gpu0 is starting: this"),
        ({}, ["draining", "starting"], "starting", "comfyui-gpu1 is starting: this"),
        ({}, ["unknown"], "unknown", "comfyui-gpu0 is unknown: this"),
        ({}, [], "unhealthy", "no instances: instances.gpus is auto, and there is no GPU here"),
        ({"run": m.FAILED}, ["healthy"], "degraded", "the last run failed"),
        ({"run": m.FAILED}, ["down"], "unhealthy",
         "the last run failed: nodes:x: no such commit; comfy"),
        ({"installation": NOTHING, "run": m.INSTALLS}, ["starting"], "installing", "environment"),
        ({"installation": NOTHING, "run": m.INSTALLS}, [], "installing", "environment"),
        ({"installation": NOTHING, "run": m.FAILED}, ["down"], "failed", "the last run failed"),
        ({"installation": NOTHING}, ["healthy"], "degraded", "nothing is installed yet"),
        ({"installation": BROKEN}, ["healthy"], "degraded", "custom node x"),
        ({"installation": BROKEN, "run": m.INSTALLS}, ["healthy"], "progressing", "environment"),
        ({"installation": BROKEN, "run": m.INSTALLS}, ["starting"], "installing", "environment"),
        ({"installation": BROKEN, "run": m.INSTALLS}, ["down"], "installing", "environment"),
        ({"installation": BROKEN, "run": m.FAILED}, ["down"], "unhealthy", "the last run failed"),
        ({"installation": BROKEN, "run": m.FAILED}, ["unhealthy"], "unhealthy", "comfyui-gpu0 is"),
        ({"behind": "x", "installation": BROKEN}, ["healthy"], "degraded", "behind machine.yaml: "),
        ({"behind": "x"}, ["down"], "unhealthy", "comfyui-gpu0 is down"),
        ({"missing": GONE}, ["healthy"], "degraded", "checkpoints/a"),
        ({"missing": GONE, "run": m.FETCHES}, ["healthy"], "progressing", "the run brings check"),
        ({"missing": GONE, "run": m.FETCHES}, ["starting"], "starting", "comfyui-gpu0 is starting"),
        ({"missing": None}, ["healthy"], "degraded", "the disk has not answered yet"),
        ({"idle_workers": {"w-gpu1": "no broker"}}, ["healthy"] * 2, "degraded",
         "w-gpu1 doesn't run: no broker"),
        ({"enabled": False, "run": m.FAILED}, [], "disabled", "ENABLE_COMF"),
        ({"enabled": False, "installation": NOTHING}, [], "disabled", "ENABLE_COMFYUI"),
    ],
)  # fmt: skip
def test_the_machine_is_degraded_at_worst_while_one_serves(
    changes: dict[str, Any], instances: list[Health], health: str, message: str
) -> None:
    now = observation(*instances, **changes)
    told = machine_condition.ready(now)
    assert told.health == health
    assert told.message.startswith(message) if message else told.message == ""
    serves = any(each in HEALTHY for each in instances)
    assert machine_condition.available(now).is_healthy is serves
    assert told.is_healthy is (serves or not now.enabled)


def test_whatever_is_less_than_healthy_has_a_reason_and_an_advice() -> None:
    every: list[list[Health]] = [
        [],
        ["healthy"],
        *([each] for each in machine_condition.WORST_FIRST),
    ]
    for installation, missing, run, behind, enabled, instances in itertools.product(
        (WHOLE, BROKEN, NOTHING, HALF),
        ({}, None, GONE, EXTRA),
        (None, m.INSTALLS, m.FETCHES, m.FAILED, m.INTERRUPTED, m.SUCCEEDED, m.run("failed")),
        ("", "left by hand"),
        (True, False),
        every,
    ):
        now = observation(
            *instances, installation=installation, missing=missing, run=run, behind=behind,
            enabled=enabled,
        )  # fmt: skip
        told = [machine_condition.installation(now), machine_condition.models(now)]
        told += [machine_condition.ready(now), *machine_condition.judge(now)]
        for each in told:
            assert bool(each.message) is not (each.health == "healthy"), (each, now)
            assert each.health == "healthy" or each.advice, (each, now)
        assert enabled or told[2].health == "disabled"
