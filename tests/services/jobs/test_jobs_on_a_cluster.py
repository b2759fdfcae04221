"""Jobs on three NATS servers, of which each is killed once while jobs run, or two are away."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from nats.errors import Error

from comfy_machine.services.jobs import connection
from tests.contract.client import until
from tests.contract.conftest import installation_of
from tests.services.jobs.conftest import Cluster
from tests.services.jobs.site import PATIENCE, Site, all_end


@pytest.fixture
def site(cluster: Cluster, tmp_path: Path) -> Iterator[Site]:
    installation = installation_of("simulator-2026", tmp_path / "comfyui")
    it = Site(cluster, installation, tmp_path)
    it.replicas = 3
    it.settings(replicas=3)
    with closing(installation), closing(it):
        until(lambda: _is_ready(it), PATIENCE, "the cluster to elect a leader")
        yield it


def _is_ready(site: Site) -> bool:
    with suppress(Error):
        # Each bucket has a leader of its own.
        site.call(lambda store: store.is_paused())
        site.call(lambda store: store.read("none"))
        return True
    return False


def test_no_job_is_lost_with_a_server_and_each_runs_once(site: Site, cluster: Cluster) -> None:
    site.begin(2)
    jobs: list[str] = []
    for server in cluster.all:
        jobs += [site.submit(site.work(does="sleep 0.2")) for _ in range(8)]
        site.until_run(len(jobs) - 6)
        server.kill()
        all_end(site, jobs)
        server.start()
        # The next may only go when this one is back among them.
        until(lambda: _is_ready(site), PATIENCE, "the cluster")
    assert {record.state for record in all_end(site, jobs)} == {"succeeded"}
    assert site.runs() == len(jobs) == 24


def test_programs_that_start_while_most_of_the_cluster_is_away_wait_for_it(
    site: Site, cluster: Cluster
) -> None:
    for server in cluster.all[1:]:
        server.kill()
    site.begin()
    # A question that nobody answers has failed by then.
    failed = time.monotonic() + connection.ANSWER + 2
    until(lambda: time.monotonic() > failed, PATIENCE, "an answer that doesn't come")
    for server in cluster.all[1:]:
        server.start()
    until(lambda: _is_ready(site), PATIENCE, "the cluster")
    assert site.ends(site.submit(site.work())).state == "succeeded"
    assert [process.poll() for process in site.processes] == [None, None]
