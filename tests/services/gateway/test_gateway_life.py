"""The gateway and its store begin and end in any order; no job is lost or made twice."""

from __future__ import annotations

import signal
import time
from pathlib import Path

from tests.contract.client import until
from tests.services.gateway.conftest import SAVE, Gateway, node
from tests.services.gateway.double_of_workers import Workers
from tests.services.jobs.conftest import Server


def test_it_waits_for_the_store(server: Server, tmp_path: Path) -> None:
    server.kill()
    gateway = Gateway(tmp_path, server.url, wait=False)
    until(lambda: _answers(gateway), 20, "the gateway")
    answer = gateway.ask("POST", "/api/v2/jobs", json={"workflow": SAVE})
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "deployment_not_ready")
    assert not gateway.ready.exists()
    server.start()
    until(gateway.ready.exists, 10, "the store")
    gateway.submit(SAVE)
    gateway.end()
    assert gateway.log == ""


def _answers(gateway: Gateway) -> bool:
    try:
        return gateway.ask("GET", "/api/v2/health").status_code == 429
    except OSError:
        return False


def test_it_ends_while_it_waits_for_the_store(server: Server, tmp_path: Path) -> None:
    server.kill()
    gateway = Gateway(tmp_path, server.url, wait=False)
    until(lambda: _answers(gateway), 20, "the gateway")
    began = time.monotonic()
    gateway.end()
    assert time.monotonic() - began < 3
    assert gateway.log == ""


def test_what_can_not_be_mended_ends_it_with_one_line(server: Server, tmp_path: Path) -> None:
    gateway = Gateway(tmp_path, server.url, wait=False, token_file=str(tmp_path / "none"))
    assert gateway.wait() != 0
    assert gateway.log.count("\n") == 1
    assert "the gateway ends: " in gateway.log
    assert str(tmp_path / "none") in gateway.log


def test_while_the_store_is_away_it_answers_what_it_knows(server: Server, gateway: Gateway) -> None:
    job = gateway.submit(SAVE)["id"]
    until(lambda: gateway.ask("GET", "/api/v2/jobs").json()["jobs"], 5, "the job")
    server.kill()
    time.sleep(0.3)
    began = time.monotonic()
    assert gateway.job(job)["status"] == "queued"
    assert [each["id"] for each in gateway.ask("GET", "/api/v2/jobs").json()["jobs"]] == [job]
    for method, path in [
        ("POST", "/api/v2/jobs"),
        ("POST", f"/api/v2/jobs/{job}/cancel"),
        ("GET", f"/api/v2/jobs/{job}/workflow"),
        ("GET", "/api/v2/jobs/5f0f5e7c-7d1c-4c1c-9a53-0d6f1d0c9d1b"),
    ]:
        answer = gateway.ask(method, path, json={"workflow": SAVE})
        assert (answer.status_code, "Retry-After" in answer.headers) == (429, True)
    assert time.monotonic() - began < 4, "nobody waits for what isn't there"
    server.start()
    until(lambda: gateway.ask("POST", f"/api/v2/jobs/{job}/cancel").ok, 5, "the store")
    until(lambda: gateway.job(job)["status"] == "canceled", 2, "the change")


def test_a_killed_gateway_knows_all_jobs_again(gateway: Gateway, workers: Workers) -> None:
    jobs = [gateway.submit(SAVE)["id"] for _ in range(10)]
    held = gateway.submit({"1": node("Hold")})["id"]
    gateway.end(signal.SIGKILL)
    gateway.start()
    assert {gateway.job(job, wait=10)["status"] for job in jobs} == {"succeeded"}
    assert gateway.ask("POST", f"/api/v2/jobs/{held}/cancel").ok
    assert gateway.job(held, wait=10)["status"] == "canceled"


def test_two_gateways_show_the_same_jobs(
    server: Server, gateway: Gateway, workers: Workers, tmp_path: Path
) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    other = Gateway(folder, server.url)
    key = {"Idempotency-Key": "once"}
    job = gateway.submit(SAVE, headers=key)["id"]
    assert other.submit(SAVE, 422, headers=key)["error"]["details"] == {"job_id": job}
    assert other.job(job, wait=10)["status"] == "succeeded"
    other.end()


def test_a_job_that_ends_while_it_is_cancelled_has_one_end(
    gateway: Gateway, workers: Workers
) -> None:
    for _ in range(10):
        job = gateway.submit(SAVE)["id"]
        answer = gateway.ask("POST", f"/api/v2/jobs/{job}/cancel").json()
        assert answer["status"] in ("canceled", "canceling", "succeeded")
        ended = gateway.job(job, wait=10)["status"]
        assert ended in ("canceled", "succeeded")
        assert gateway.ask("POST", f"/api/v2/jobs/{job}/cancel").json()["status"] == ended
