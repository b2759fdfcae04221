"""Jobs that wait in vain say why."""

from __future__ import annotations

import asyncio
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from comfy_machine.services.gateway.announced_instances import AnnouncedInstances
from comfy_machine.services.gateway.waiting_reasons import WaitingReasons
from comfy_machine.services.jobs.demand import Instance
from comfy_machine.services.jobs.worker_protocol import Announcement, State
from tests.contract.client import until
from tests.contract.conftest import installation_of
from tests.services.gateway.conftest import Gateway, node
from tests.services.gateway.test_job_view import record
from tests.services.jobs.conftest import Server
from tests.services.jobs.site import PATIENCE, Site


def until_waits(gateway: Gateway, job: str, why: str | None) -> None:
    def says() -> bool:
        return bool(gateway.job(job)["waits_because"] == why)

    try:
        until(says, PATIENCE, "the reason")
    except AssertionError:
        raise AssertionError(gateway.job(job)) from None


def test_a_job_says_why_it_waits_as_instances_come_and_go(
    server: Server, gateway: Gateway, tmp_path: Path
) -> None:
    job = gateway.submit({"1": node("Nowhere")})["id"]
    until_waits(gateway, job, "no instance is there: none has been heard of for a minute")
    installation = installation_of("simulator-2026", tmp_path / "comfyui")
    site = Site(server, installation, tmp_path)
    with closing(installation), closing(site):
        site.layout.draining(0).parent.mkdir(parents=True)
        site.layout.draining(0).touch()
        site.begin()
        until_waits(gateway, job, "no instance has node class Nowhere")
        other = gateway.submit(site.work())["id"]
        until_waits(gateway, other, "no instance takes it: here_comfyui-gpu0 (it is draining)")
        told = gateway.ask("GET", "/api/v2/queue/overview").json()["stuck"]
        assert [(each["why"], each["jobs"], each["id"]) for each in told] == [
            ("no instance has node class Nowhere", 1, job),
            ("no instance takes it: here_comfyui-gpu0 (it is draining)", 1, other),
        ]
        (listed,) = gateway.ask("GET", "/api/v2/jobs?limit=1").json()["jobs"]
        assert listed["waits_because"] == gateway.job(other)["waits_because"]
        site.layout.draining(0).unlink()
        assert gateway.job(other, wait=30)["status"] == "succeeded"
        assert gateway.job(other)["waits_because"] is None


@pytest.fixture
def instances() -> AnnouncedInstances:
    it = AnnouncedInstances()
    it._since = 0.0
    return it


def hear(instances: AnnouncedInstances, name: str, state: State, why: str = "") -> None:
    said = Announcement(instance=name, session="1", number=1, state=state, why=why)
    data = said.model_dump_json().encode()
    asyncio.run(instances.hear(Msg(Client(), subject="", data=data)))


def test_jobs_of_one_reason_are_counted_together(instances: AnnouncedInstances) -> None:
    reasons = WaitingReasons(instances)
    instances.having = [Instance("a", frozenset("x"), frozenset(), memory=8_000_000_000)]
    hear(instances, "a", "busy")
    about: list[dict[str, Any]] = [
        {"classes": ("y",)}, {"classes": ("y",)}, {"classes": ("x",)}, {"above": 8_000_000_000},
        {"classes": ("y",), "state": "leased"},
    ]  # fmt: skip
    jobs = [record(float(9 - n), **each) for n, each in enumerate(about)]
    unfit = "no instance has node class y"
    memory = "no instance has more than 8 GB of GPU memory"
    assert [reasons.why(each) for each in jobs] == [unfit, unfit, None, memory, None]
    told = [(each.why, each.jobs, each.first) for each in reasons.stuck(jobs[:4])]
    assert told == [(memory, 1, jobs[3]), (unfit, 2, jobs[1])]


def test_an_instance_that_fits_must_take_jobs(instances: AnnouncedInstances) -> None:
    reasons, job = WaitingReasons(instances), record(classes=("x",))
    names = "abcde"
    instances.having = [Instance("other", frozenset("y")), *(Instance(each) for each in names)]
    hear(instances, "other", "idle")
    for name in names:
        hear(instances, name, "away", "it is draining")
    assert reasons.why(job) == (
        "no instance takes it: a (it is draining), b (it is draining), c (it is draining) and 2 "
        "more"
    )
    hear(instances, "e", "busy")
    assert reasons.why(job) is None
    at, said = instances._heard["e"]
    instances._heard["e"] = (at - 10, said)
    assert "and 2 more" in str(reasons.why(job))


def test_nothing_is_said_before_all_instances_were_heard() -> None:
    instances = AnnouncedInstances()
    instances.listen()
    assert WaitingReasons(instances).why(record()) is None
