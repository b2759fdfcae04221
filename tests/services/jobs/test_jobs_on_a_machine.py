"""Jobs while the machine under them changes, and while its programs are killed: none is lost."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import requests

from comfy_machine.host.pm2 import apps
from tests.conftest import MachineMaker
from tests.contract.client import until
from tests.forge import Forge, Repository
from tests.rig import Rig
from tests.services.jobs.site import WORK

PATIENCE = 120.0
JOBS = 24


class Customer:
    """Sends jobs through the gateway and waits for them."""

    def __init__(self, rig: Rig, notes: Path) -> None:
        self._url = f"http://127.0.0.1:{rig.spec['jobs']['gateway_port']}/api/v2/jobs"
        self._notes = notes
        self._session = requests.Session()
        self._session.trust_env = False
        self.jobs: list[str] = []

    def send(self, jobs: int = JOBS) -> None:
        inputs = {"notes": str(self._notes), "gate": "", "does": "sleep 0.3"}
        workflow = {"1": {"class_type": "Work", "inputs": inputs}}
        for _ in range(jobs):
            answer = self._session.post(self._url, json={"workflow": workflow}, timeout=30)
            assert answer.status_code == 201, answer.text
            self.jobs.append(answer.json()["id"])

    def has_begun(self) -> bool:
        return self.runs() >= 2

    def runs(self) -> int:
        return len(self._notes.read_text().splitlines()) if self._notes.exists() else 0

    def ends(self) -> list[dict[str, Any]]:
        """All jobs once each has ended."""

        def ended() -> list[dict[str, Any]] | None:
            try:
                found = [
                    self._session.get(f"{self._url}/{job}", timeout=30).json() for job in self.jobs
                ]
            except requests.RequestException:
                return None
            return found if all(each.get("completed_at") for each in found) else None

        found = until(ended, PATIENCE, "all jobs to end")
        assert found
        return found


@pytest.fixture
def node(forge: Forge) -> Repository:
    return forge.repository("work", {"__init__.py": WORK})


@pytest.fixture
def rig(machine: MachineMaker, node: Repository) -> Rig:
    """A machine with two instances that is up."""
    found = machine(custom_nodes=[{"url": node.url}], instances={"gpus": 2})
    found.spec["jobs"] = {"port": found.port(2), "gateway_port": found.port(3)}
    found.doit()
    return found


@pytest.fixture
def customer(rig: Rig, tmp_path: Path) -> Customer:
    return Customer(rig, tmp_path / "notes")


def test_a_roll_and_an_upgrade_lose_no_job_and_repeat_none(
    rig: Rig, node: Repository, customer: Customer
) -> None:
    customer.send()
    until(customer.has_begun, PATIENCE, "the jobs to begin")
    rig.doit("restart")
    node.commit({"more.py": "1\n"})
    customer.send()
    rig.doit("update")
    rig.doit()
    assert {(job["status"], job["attempt"]) for job in customer.ends()} == {("succeeded", 1)}
    assert customer.runs() == 2 * JOBS


def test_down_gives_jobs_back_and_up_goes_on_with_them(rig: Rig, customer: Customer) -> None:
    customer.send()
    until(customer.has_begun, PATIENCE, "the jobs to begin")
    rig.doit("down")
    before = customer.runs()
    assert before < JOBS
    rig.doit()
    assert {(job["status"], job["attempt"]) for job in customer.ends()} == {("succeeded", 1)}
    assert customer.runs() == JOBS


def test_whatever_is_killed_each_job_has_one_result(rig: Rig, customer: Customer) -> None:
    customer.send()
    until(customer.has_begun, PATIENCE, "the jobs to begin")
    victims = (apps.JOBS_SERVER, apps.SCHEDULER, apps.GATEWAY, "jobs-gpu0", "comfyui-gpu1")
    for name in victims:
        running = {app.name: app.pid for app in apps.running(rig.workspace, None)}
        os.kill(running[name], signal.SIGKILL)
    assert {job["status"] for job in customer.ends()} == {"succeeded"}
    # Only the one that ran on the killed instance may have run again.
    assert JOBS <= customer.runs() <= JOBS + 1
