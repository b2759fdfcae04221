"""What waits, runs and has ended last, in one small answer."""

from __future__ import annotations

import random
import time
from typing import Any

from comfy_machine.services.gateway.job_view import JobView
from comfy_machine.services.gateway.queue_overview import LONGEST, MOST_ENDED
from comfy_machine.services.jobs.job_store import Stored
from comfy_machine.services.jobs.record import Error
from tests.contract.client import until
from tests.services.gateway.conftest import SAVE, Gateway, node
from tests.services.gateway.double_of_workers import INSTANCE, Workers
from tests.services.gateway.test_job_view import record
from tests.services.jobs.conftest import Server


def overview(gateway: Gateway) -> dict[str, Any]:
    answer = gateway.ask("GET", "/api/v2/queue/overview")
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


def test_an_empty_queue(gateway: Gateway) -> None:
    assert overview(gateway) == {
        "paused": False, "waiting": 0, "oldest": None, "oldest_waiting_seconds": None,
        "running": 0, "dead": 0, "stuck": [], "runs": [], "ended": [],
    }  # fmt: skip


def test_what_waits_runs_and_has_ended(gateway: Gateway, workers: Workers) -> None:
    begun = time.time()
    made = gateway.submit({"1": node("Save", name="notes.txt"), "2": node("Save")})["id"]
    assert gateway.job(made, wait=10)["status"] == "succeeded"
    broken = gateway.submit({"7": node("Break")})["id"]
    assert gateway.job(broken, wait=10)["status"] == "failed"
    held = gateway.submit({"1": node("Say"), "2": node("Hold")})["id"]
    until(lambda: (overview(gateway)["runs"] or [{}])[0].get("node") == "2", 10, "progress")
    workers.pause()
    for _ in range(3):
        gateway.submit(SAVE)
    gateway.ask("POST", "/api/v2/queue/pause")

    told = overview(gateway)
    assert (told["paused"], told["waiting"], told["running"], told["dead"]) == (True, 3, 1, 0)
    assert begun < told["oldest"] < time.time()
    assert 0 < told["oldest_waiting_seconds"] < 60
    (runs,) = told["runs"]
    assert begun < runs.pop("since") < runs.pop("preview_at") < time.time()
    assert runs == {
        "id": held, "instance": INSTANCE, "owner": "local", "progress": 0.5, "node": "2",
    }  # fmt: skip
    shown = gateway.ask("GET", f"/api/v2/jobs/{held}/preview")
    assert (shown.content, shown.headers["content-type"]) == (b"\x89PNG", "image/png")
    assert shown.headers["cache-control"] == "no-store"
    for job in (made, broken, "none"):
        assert gateway.ask("GET", f"/api/v2/jobs/{job}/preview").status_code == 404
    failed, well = told["ended"]
    assert (failed["id"], failed["status"], failed["instance"]) == (broken, "failed", INSTANCE)
    assert failed["output"] is None
    assert failed["error"] == {
        "type": "ValueError", "message": "it broke", "node": "7", "node_type": "Break",
    }  # fmt: skip
    assert (well["id"], well["status"], well["error"]) == (made, "succeeded", None)
    assert 0 < well["seconds"] < 60
    assert well["output"]["content_type"] == "image/png", "a picture rather than a text"
    path = well["output"]["url"].removeprefix(gateway.url)
    assert gateway.ask("GET", path).content == b"0123456789"
    gateway.ask("POST", f"/api/v2/jobs/{held}/cancel")


def test_it_stays_small(gateway: Gateway, workers: Workers) -> None:
    for n in range(MOST_ENDED + 3):
        last = gateway.submit({"1": node("Save", name=f"{n}.png")})["id"]
        gateway.job(last, wait=10)
    ended = overview(gateway)["ended"]
    assert len(ended) == MOST_ENDED
    assert ended[0]["id"] == last, "the last one comes first"


def test_without_the_store_it_says_what_it_knows(gateway: Gateway, server: Server) -> None:
    gateway.submit(SAVE)
    server.kill()
    until(lambda: overview(gateway)["paused"] is None, 20, "the store to be missed")
    begun = time.monotonic()
    assert overview(gateway)["waiting"] == 1
    assert time.monotonic() - begun < 1
    server.start()


def test_ends_are_known_in_their_order_until_they_are_undone_or_forgotten() -> None:
    view, jobs = JobView(), [record(1.0, "failed", ended=float(n // 2)) for n in range(20)]
    dead = record(1.0, "dead", ended=99.0, error=Error(type="x", message="y" * LONGEST * 2))
    for each in random.Random(1).sample([*jobs, dead], 21):
        view.changed(Stored(each, 1))
    order = [dead, *sorted(jobs, key=lambda each: (each.ended, each.id), reverse=True)]
    assert (view.last_ended(100), view.last_ended(5)) == (order, order[:5])
    assert (view.dead, view.oldest()) == (1, None)
    view.changed(Stored(dead.next("waiting", ended=0.0), 2))
    view.forgotten(order[1].id)
    assert view.last_ended(100) == order[2:]
    assert (view.dead, view.oldest()) == (0, 1.0)
