"""What Prometheus scrapes at the gateway."""

from __future__ import annotations

from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.contract.client import until
from tests.services.gateway.conftest import Gateway
from tests.services.gateway.test_real_workers import site
from tests.services.jobs.site import PATIENCE, Site

__all__ = ["site"]


def numbers(gateway: Gateway) -> dict[tuple[str, str], float]:
    """Name and outcome → value."""
    text = gateway.ask("GET", "/metrics").text
    return {
        (sample.name, sample.labels.get("outcome", "")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if "le" not in sample.labels
    }


def test_what_waits_runs_and_has_ended_is_counted(
    site: Site,
    gateway: Gateway,
    tmp_path: Path,
) -> None:
    gate = tmp_path / "gate"
    for workflow in (site.work(gate), site.work(does="fail"), site.work()):
        gateway.submit(workflow)
    site.until_run()

    def told(name: str, outcome: str = "") -> float:
        return numbers(gateway).get((f"comfy_machine_{name}", outcome), 0)

    until(lambda: told("jobs_running") == 1, PATIENCE, "the running job")
    assert told("jobs_waiting") == 2
    assert told("jobs_oldest_waiting_seconds") > 0
    gate.touch()
    until(lambda: told("jobs_ended_total", "succeeded") == 2, PATIENCE, "the ends")
    assert told("jobs_ended_total", "failed") == 1
    assert told("job_attempts_total") == 3
    assert told("job_wait_seconds_count", "succeeded") == 2
    assert told("job_run_seconds_count", "failed") == 1
    assert told("job_run_seconds_sum", "succeeded") > 0
    assert (told("jobs_waiting"), told("jobs_oldest_waiting_seconds"), told("jobs_dead")) == (
        0,
        0,
        0,
    )
