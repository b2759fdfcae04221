"""Jobs on three NATS servers, of which each is killed once while jobs run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from nats.errors import Error

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
        site.call(lambda store: store.is_paused())
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
