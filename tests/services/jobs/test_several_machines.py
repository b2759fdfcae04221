"""Three machines, each with a network of its own, on one queue: of one NATS server, or of a cluster
with a server on each. Machines come, leave, die, are cut off; each job has exactly one result."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.contract.client import until
from tests.services.jobs.fleet import Fleet, Job, Servers
from tests.services.jobs.namespaces import Impossible, network
from tests.services.jobs.site import PATIENCE, Site

THREE = ("one", "two", "three")
ONE_SERVER, CLUSTER = 1, 3

# A busy machine takes several times as long.
pytestmark = pytest.mark.timeout(400)


on_one_server = pytest.mark.parametrize("fleet", [ONE_SERVER], ids=["one server"], indirect=True)


@pytest.fixture(params=[ONE_SERVER, CLUSTER], ids=["one server", "a cluster"])
def fleet(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Fleet]:
    """Without machines yet; the test is at a place that is never cut off."""
    with ExitStack() as stack:
        try:
            net = stack.enter_context(network())
        except Impossible as why:
            pytest.skip(str(why))
        servers = Servers(tmp_path, [net.place() for _ in range(request.param)])
        stack.callback(servers.kill)
        stack.enter_context(net.place().inside())
        yield Fleet(net, servers, tmp_path, stack)


def of_all(fleet: Fleet) -> dict[str, Job]:
    """Jobs sent through each machine, which all machines run at once until they are let go."""
    jobs = [fleet.send(name, held=True) for name in fleet.machines]
    fleet.until_begun(jobs)
    there = {fleet.machine_of(job): job for job in jobs}
    assert there.keys() == fleet.machines.keys()
    return there


def test_jobs_that_any_machine_takes_run_on_all(fleet: Fleet) -> None:
    fleet.add(*THREE)
    jobs = of_all(fleet).values()
    for job in jobs:
        job.let_go()
    assert {(each.state, each.attempt) for each in fleet.ends(*jobs)} == {("succeeded", 1)}
    assert [job.begun for job in jobs] == [1, 1, 1]
    for machine in fleet.machines.values():
        shown = machine.ask("GET", "/api/v2/jobs").json()["jobs"]
        assert sorted(each["id"] for each in shown) == sorted(job.id for job in jobs)
        assert {each["status"] for each in shown} == {"succeeded"}


def test_a_cut_off_machines_job_runs_elsewhere_and_has_one_result(fleet: Fleet) -> None:
    fleet.add(*THREE)
    jobs, name = of_all(fleet), fleet.leader()
    cut, job = fleet[name], jobs[name]
    cut.place.cut()
    others = [each for each in jobs.values() if each is not job]
    for each in others:
        each.let_go()
    assert {each.state for each in fleet.ends(*others)} == {"succeeded"}
    fleet.until_begun([job], 2)
    assert cut.runs() == [], "it ended the job before its lease ended"
    refused = cut.ask("POST", "/api/v2/jobs", json={"workflow": Site.pictures()})
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "deployment_not_ready")
    job.let_go()
    (record,) = fleet.ends(job)
    assert (record.state, record.attempt, job.begun) == ("succeeded", 2, 2)
    assert fleet.machine_of(job) != name
    cut.place.join()
    again = of_all(fleet).values()
    for each in again:
        each.let_go()
    assert {each.state for each in fleet.ends(*again)} == {"succeeded"}
    assert [each.begun for each in (*others, *again)] == [1] * 5
    assert fleet.read(job) == record


@on_one_server
def test_a_cut_off_worker_ends_its_job_in_time_with_many_pictures_on_their_way(
    fleet: Fleet,
) -> None:
    fleet.add("one", "two")
    job = fleet.send("one", "show", held=True)
    fleet.until_begun([job])
    cut = fleet[fleet.machine_of(job)]
    cut.place.cut()
    fleet.until_begun([job], 2)
    assert cut.runs() == []
    job.let_go()
    (record,) = fleet.ends(job)
    assert (record.state, record.attempt, job.begun) == ("succeeded", 2, 2)


def test_the_late_result_of_a_cut_off_machine_is_dropped(fleet: Fleet) -> None:
    fleet.add("one")
    job = fleet.send("one", held=True, more=Site.pictures())
    fleet.until_begun([job])
    one = fleet["one"]
    one.place.cut()
    job.let_go()
    kept = one.site.layout.outputs(0).parent / "jobs" / job.id
    until(kept.exists, PATIENCE, "the end at the instance")
    fleet.add("two")
    (record,) = fleet.ends(job)
    assert (record.state, record.attempt, job.begun) == ("succeeded", 2, 2)
    one.place.join()
    until(lambda: not kept.exists(), PATIENCE, "its files to be dropped")
    assert fleet.read(job) == record
    shown = f"/api/v2/jobs/{job.id}"
    until(lambda: one.ask("GET", shown).json()["attempt"] == 2, PATIENCE, "its gateway")


def test_a_machine_that_is_back_before_its_lease_ends_gives_the_job_back(fleet: Fleet) -> None:
    fleet.add("one", "two")
    job = fleet.send("one", held=True)
    fleet.until_begun([job])
    cut = fleet[fleet.machine_of(job)]
    cut.place.cut()
    until(lambda: not cut.runs(), PATIENCE, "the worker to end its job")
    cut.place.join()
    fleet.until_begun([job], 2)
    job.let_go()
    (record,) = fleet.ends(job)
    assert (record.state, job.begun) == ("succeeded", 2)


def test_one_leaves_in_order_and_one_joins_under_load(fleet: Fleet) -> None:
    fleet.add(*THREE)
    jobs = [fleet.send(name, does="sleep 0.3") for name in THREE for _ in range(8)]
    fleet.until_begun(jobs[:3])
    fleet["one"].leave()
    fleet.add("four")
    jobs += [fleet.send("four", does="sleep 0.3") for _ in range(6)]
    found = fleet.ends(*jobs)
    assert {(each.state, each.counted) for each in found} == {("succeeded", 1)}
    assert {job.begun for job in jobs} == {1}
    assert "four_comfyui-gpu0" in {each.instance for each in found}


def test_one_that_dies_loses_no_job(fleet: Fleet) -> None:
    fleet.add(*THREE)
    jobs = [fleet.send(name, does="sleep 0.3") for name in THREE for _ in range(8)]
    fleet.until_begun(jobs[:3])
    fleet["one"].die()
    found = fleet.ends(*jobs)
    assert {each.state for each in found} == {"succeeded"}
    # Only what ran there may have begun twice.
    assert len(jobs) <= sum(job.begun for job in jobs) <= len(jobs) + 1
    assert [fleet.read(job) for job in jobs] == found
