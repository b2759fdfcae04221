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


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    return tmp_path / "gate"


def of_all(fleet: Fleet, gate: Path) -> list[Job]:
    """Jobs sent through each machine, and so many that all machines run one at once."""
    jobs = [fleet.send(name, gate) for name in THREE]
    fleet.until_begun(jobs)
    assert {fleet.read(job).instance for job in jobs} == {f"{name}_comfyui-gpu0" for name in THREE}
    return jobs


def test_jobs_that_any_machine_takes_run_on_all(fleet: Fleet, gate: Path) -> None:
    fleet.add(*THREE)
    jobs = of_all(fleet, gate)
    gate.touch()
    assert {(each.state, each.attempt) for each in fleet.ends(*jobs)} == {("succeeded", 1)}
    assert [job.begun for job in jobs] == [1, 1, 1]
    for machine in fleet.machines.values():
        shown = machine.ask("GET", "/api/v2/jobs").json()["jobs"]
        assert {each["status"] for each in shown} == {"succeeded"}
        assert {each["id"] for each in shown} == {job.id for job in jobs}


def test_a_cut_off_machines_job_runs_elsewhere_and_has_one_result(fleet: Fleet, gate: Path) -> None:
    fleet.add("one")
    job = fleet.send("one", gate)
    fleet.until_begun([job])
    fleet.add("two", "three")
    one = fleet["one"]
    assert fleet.leader() == "one"
    one.place.cut()
    elsewhere = fleet.send("two")
    fleet.until_begun([job], 2)
    assert one.runs() == [], "it ended the job before its lease ended"
    refused = one.ask("POST", "/api/v2/jobs", json={"workflow": {"1": {"class_type": "Work"}}})
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "deployment_not_ready")
    gate.touch()
    record, other = fleet.ends(job, elsewhere)
    assert (record.state, record.attempt, job.begun) == ("succeeded", 2, 2)
    assert (other.state, other.attempt, elsewhere.begun) == ("succeeded", 1, 1)
    assert not {record.instance, other.instance} & {"one_comfyui-gpu0"}
    one.place.join()
    until(lambda: one.ask("GET", "/api/v2/queue").ok, PATIENCE, "its gateway")
    gate.unlink()
    more = of_all(fleet, gate)
    gate.touch()
    assert {each.state for each in fleet.ends(*more)} == {"succeeded"}
    assert [each.begun for each in more] == [1, 1, 1]
    assert fleet.read(job) == record


def test_the_late_result_of_a_cut_off_machine_is_dropped(fleet: Fleet, gate: Path) -> None:
    fleet.add("one")
    job = fleet.send("one", gate, more=Site.pictures())
    fleet.until_begun([job])
    one = fleet["one"]
    one.place.cut()
    gate.touch()
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


def test_a_machine_that_is_back_before_its_lease_ends_gives_the_job_back(
    fleet: Fleet, gate: Path
) -> None:
    fleet.add("one", "two")
    job = fleet.send("one", gate)
    fleet.until_begun([job])
    name = fleet.read(job).instance.partition("_")[0]
    fleet[name].place.cut()
    until(lambda: not fleet[name].runs(), PATIENCE, "the worker to end its job")
    fleet[name].place.join()
    fleet.until_begun([job], 2)
    gate.touch()
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
