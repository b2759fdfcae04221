"""Two machines, as doit brings them up, each in a network of its own, on one NATS server."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.conftest import MachineMaker
from tests.contract.client import until
from tests.forge import Forge
from tests.rig import DOIT, Ended, Rig, free_ports
from tests.services.jobs.conftest import Server
from tests.services.jobs.namespaces import Impossible, Place, network
from tests.services.jobs.site import WORK
from tests.services.jobs.test_jobs_on_a_machine import JOBS, PATIENCE, Customer

TOKEN = "sesame"

# A busy machine takes several times as long.
pytestmark = pytest.mark.timeout(400)


class Machine:
    """One of them, and a customer of its gateway who is there too."""

    def __init__(self, rig: Rig, place: Place, url: str, name: str) -> None:
        self.rig, self.place = rig, place
        # As a process of its own, which is where the caller is.
        rig.program = (sys.executable, str(DOIT))
        rig.env["NATS_TOKEN"] = TOKEN
        rig.spec |= {
            "machine_id": name,
            "jobs": {
                "url": url,
                "credentials": "${NATS_TOKEN}",
                "gateway_port": rig.port(1),
            },
        }
        self.customer = Customer(rig, rig.folder / "notes")

    def doit(self, *words: str) -> Ended:
        with self.place.inside():
            return self.rig.doit(*words)

    def send(self) -> None:
        with self.place.inside():
            self.customer.send()
        until(self.customer.has_begun, PATIENCE, "the jobs to begin")

    def results(self) -> set[tuple[str, int]]:
        """Status and attempt of all jobs that were sent here, once all have ended."""
        with self.place.inside():
            return {(job["status"], job["attempt"]) for job in self.customer.ends()}


@pytest.fixture
def both(machine: MachineMaker, forge: Forge, tmp_path: Path) -> Iterator[tuple[Machine, Machine]]:
    """Two machines that are up."""
    node = forge.repository("work", {"__init__.py": WORK})
    with ExitStack() as stack:
        try:
            net = stack.enter_context(network())
        except Impossible as why:
            pytest.skip(str(why))
        middle = net.place()
        with middle.inside():
            more = f"authorization {{ token: {TOKEN} }}\n"
            server = Server(tmp_path, more, middle.address, free_ports(1))
        stack.callback(server.kill)
        one, two = (
            Machine(machine(name, custom_nodes=[{"url": node.url}]), net.place(), server.url, name)
            for name in ("one", "two")
        )
        for each in (one, two):
            # Packages are resolved where an index can be reached; then nothing else needs to be.
            each.rig.doit("build")
            each.doit()
        yield one, two


def test_they_leave_come_and_are_cut_off_and_no_job_is_lost(both: tuple[Machine, Machine]) -> None:
    one, two = both
    one.send()
    two.send()
    one.doit("down")
    two.doit("restart")
    one.doit()
    for each in both:
        assert each.results() == {("succeeded", 1)}
        assert each.customer.runs() == JOBS
    one.send()
    two.place.cut()
    assert {status for status, _ in one.results()} == {"succeeded"}
    # What ran there when it was cut off has begun again.
    assert 2 * JOBS <= one.customer.runs() <= 2 * JOBS + 1
    two.place.join()
    two.doit()
    two.send()
    assert two.results() == {("succeeded", 1)}
    assert two.customer.runs() == 2 * JOBS
