"""A webhook from the request to the receiver, with the real scheduler and worker."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.client import until
from tests.services.gateway.conftest import Gateway
from tests.services.gateway.test_job_metrics import numbers
from tests.services.gateway.test_native_api import messages, socket
from tests.services.gateway.test_real_workers import site
from tests.services.jobs.receiver import Receiver, receiver
from tests.services.jobs.site import PATIENCE, Site

__all__ = ["site"]


@pytest.fixture
def hears() -> Iterator[Receiver]:
    with receiver() as it:
        yield it


def told(gateway: Gateway, job: str, status: str) -> None:
    until(lambda: gateway.job(job)["webhook"]["status"] == status, PATIENCE, f"{job} {status}")


def test_a_job_that_is_tried_again_tells_again(
    site: Site, gateway: Gateway, hears: Receiver
) -> None:
    hears.codes = [410]
    job = gateway.submit(site.work(does="fail"), webhook_url=hears.url)["id"]
    told(gateway, job, "failed")
    hook = gateway.job(job)["webhook"]
    assert (hook["attempts"], hook["error"]) == (1, "it answered with code 410")
    gateway.ask("POST", f"/api/v2/jobs/{job}/retry")
    told(gateway, job, "delivered")
    first, second = hears.heard
    assert first.headers["webhook-id"] != second.headers["webhook-id"]
    assert second.said["data"]["id"] == job
    counted = numbers(gateway)
    for outcome in ("delivered", "failed"):
        assert counted["comfy_machine_job_webhooks_total", outcome] == 1


def test_a_client_of_comfyui_has_one_too_and_hears_of_one_end(
    site: Site, gateway: Gateway, hears: Receiver
) -> None:
    extra = {"webhook_url": hears.url, "other": 1}
    hears.answers.clear()

    def submit(**about: object) -> str:
        body = {"prompt": site.work(), "client_id": "me", **about}
        answer = gateway.ask("POST", "/prompt", json=body)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["prompt_id"])

    job = submit(extra_data=extra)
    assert gateway.job(job, wait=30)["status"] == "succeeded"
    until(lambda: hears.heard, PATIENCE, "the request")
    assert hears.heard[0].said["data"]["id"] == job
    with socket(gateway, "me") as it:
        hears.answers.set()
        told(gateway, job, "delivered")
        said = messages(it, submit())
    about = {each["data"]["prompt_id"] for each in said if "prompt_id" in each.get("data", {})}
    assert job not in about, "it ended before this client came"
    (entry,) = gateway.ask("GET", f"/history/{job}").json().values()
    assert "webhook_url" not in entry["prompt"][3]
    assert entry["prompt"][3]["other"] == 1
    refused = gateway.ask("POST", "/prompt", json={"prompt": site.work(),
                          "extra_data": {"webhook_url": "done"}})  # fmt: skip
    assert refused.status_code == 400
    assert "'webhook_url' is no http" in refused.json()["error"]["message"]
