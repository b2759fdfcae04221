"""Jobs: an upgrade of the machine under them loses none, repeats none, and is hardly noticed.

A machine of simulated instances, as doit brings it up, and a client of its gateway. Half of the
jobs wait when the upgrade begins, a custom node's new commit; the others come while it goes on.

    python -m tests.benchmarks.job_upgrade [--jobs 1000] [--seconds 0.1] [--gpus 2]

`--built` names a workspace whose PM2 and environment serve, so that neither is installed.

It ends with 1 when a figure is not reached.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from contextlib import closing
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import requests

from comfy_machine.spec.layout import Layout
from tests.benchmarks.figures import at_most, conclude, exit_on_signals, timed
from tests.conftest import copy_environments, link_supervisor, uv_cache
from tests.contract.client import until
from tests.forge import Forge, Repository
from tests.rig import SIMULATOR, Rig, free_ports
from tests.services.jobs.site import WORK

PACE = 0.02
"""Seconds between two jobs that are sent while the upgrade goes on."""
PATIENCE = 600.0
"""Seconds until all jobs have ended."""


def machine(folder: Path, gpus: int, built: Path | None) -> tuple[Rig, Repository]:
    """One that is up, and the repository of its node."""
    node = Forge(folder / "forge").repository("work", {"__init__.py": WORK})
    first = free_ports(gpus + 2)
    rig = Rig(
        folder,
        {
            "workspace": "ws",
            "comfyui": {"path": str(SIMULATOR)},
            "python": {"torch": "none"},
            "custom_nodes": [{"url": node.url}],
            "instances": {"gpus": gpus, "cpu_only": True, "port_start": first},
            "health": {"server": False},
            "jobs": {"port": first + gpus, "gateway_port": first + gpus + 1},
        },
        env={"XDG_CACHE_HOME": str(folder / "cache"), "UV_CACHE_DIR": uv_cache()},
    )
    if built:
        link_supervisor(Layout(built).supervisor, rig.layout)
        copy_environments(Layout(built).environments, rig.layout.environments)
    return rig, node


class Client:
    """Sends jobs, each again until it is taken, under a key by which it is taken once."""

    def __init__(self, rig: Rig, seconds: float) -> None:
        self._url = f"http://127.0.0.1:{rig.spec['jobs']['gateway_port']}/api/v2"
        self._does, self.notes = f"sleep {seconds}", rig.folder / "notes"
        self._session = requests.Session()
        self._session.trust_env = False
        self.jobs: list[str] = []
        self.repeated = 0

    def send(self, jobs: int, pace: float = 0.0) -> None:
        inputs = {"notes": str(self.notes), "gate": "", "does": self._does}
        workflow = {"1": {"class_type": "Work", "inputs": inputs}}
        for _ in range(jobs):
            while not (job := self._taken(workflow, f"job {len(self.jobs)}")):
                self.repeated += 1
                time.sleep(0.1)
            self.jobs.append(job)
            time.sleep(pace)

    def _taken(self, workflow: Any, key: str) -> str:
        try:
            answer = self._session.post(
                f"{self._url}/jobs", json={"workflow": workflow}, timeout=30,
                headers={"Idempotency-Key": key},
            )  # fmt: skip
        except requests.RequestException:
            return ""
        if answer.status_code == 422 and "job_id" in answer.json()["error"]["details"]:
            return str(answer.json()["error"]["details"]["job_id"])
        return str(answer.json()["id"]) if answer.status_code == 201 else ""

    def begun(self) -> int:
        return len(self.notes.read_text().splitlines()) if self.notes.exists() else 0

    def ends(self) -> list[dict[str, Any]]:
        """All jobs once none waits or runs."""

        def over() -> bool:
            queue = self._session.get(f"{self._url}/queue", timeout=30).json()
            return bool(queue["queued"] == queue["running"] == 0)

        until(over, PATIENCE, "all jobs to end")
        return [
            self._session.get(f"{self._url}/jobs/{job}", timeout=30).json() for job in self.jobs
        ]


def upgraded(rig: Rig, node: Repository, client: Client, jobs: int) -> None:
    client.send(jobs - jobs // 2)
    until(lambda: client.begun() >= 2, 60, "the jobs to begin")
    sending = threading.Thread(target=client.send, args=(jobs // 2, PACE))
    sending.start()
    node.commit({"more.py": "1\n"})
    before = rig.layout.current.resolve()

    def upgrade() -> None:
        rig.doit("update")
        rig.doit()

    took = timed(upgrade)
    left = jobs - client.begun()
    assert rig.layout.current.resolve() != before
    sending.join()
    found = client.ends()
    done = {each["id"] for each in found if each["status"] == "succeeded"}
    more = f", {left} of {jobs} had not begun when it was done after {took:.0f} s"
    at_most("jobs that an upgrade lost", jobs - len(done), 0, "", more)
    at_most("jobs that it repeated", client.begun() - jobs, 0)
    again = max(each["attempt"] for each in found)
    at_most("attempts of a job", again, 1)
    ends = sorted(_seconds(each["completed_at"]) for each in found)
    pause = max(after - before for before, after in pairwise(ends))
    at_most("longest time without a result", pause, 5, "s")
    at_most("jobs that the gateway took at the second try or later", client.repeated, 0)


def _seconds(stamp: str) -> float:
    return datetime.fromisoformat(stamp.replace("Z", "+00:00")).timestamp()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=0.1)
    parser.add_argument("--gpus", type=int, default=2)
    parser.add_argument("--built", type=Path)
    given = parser.parse_args()
    exit_on_signals()
    with tempfile.TemporaryDirectory() as name:
        rig, node = machine(Path(name), given.gpus, given.built)
        with closing(rig):
            rig.doit()
            upgraded(rig, node, Client(rig, given.seconds), given.jobs)
    return conclude()


if __name__ == "__main__":
    sys.exit(main())
