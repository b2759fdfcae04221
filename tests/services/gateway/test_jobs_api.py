"""Jobs over HTTP: from their submission to their outputs, and what is refused."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.services.gateway.conftest import SAVE, Gateway, node
from tests.services.gateway.double_of_workers import Workers
from tests.services.jobs.conftest import Server

TALK = {"1": node("Say"), "9": node("Save")}


def events(gateway: Gateway, job: str) -> list[tuple[str, Any]]:
    """All events until the stream ends."""
    found: list[tuple[str, Any]] = []
    with gateway.ask("GET", f"/api/v2/jobs/{job}/events", stream=True) as answer:
        assert answer.status_code == 200, answer.text
        name = ""
        for line in answer.iter_lines(chunk_size=1, decode_unicode=True):
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                found.append((name, json.loads(line.removeprefix("data: "))))
    return found


def test_a_job_from_its_submission_to_its_output(gateway: Gateway, workers: Workers) -> None:
    made = gateway.submit(SAVE, priority=2, metadata={"run": "7"})
    assert made["status"] == "queued"
    assert made["queue_position"] in (1, None)
    assert made["outputs"] == []
    done = gateway.job(made["id"], wait=10)
    assert done["status"] == "succeeded"
    assert (done["metadata"], done["priority"], done["owner"]) == ({"run": "7"}, 2, "local")
    assert done["metrics"]["queue_ms"] >= 0
    (output,) = done["outputs"]
    assert (output["node_id"], output["type"], output["size_bytes"]) == ("9", "image", 10)
    assert output["url"] == f"{gateway.url}/api/v2/assets/{output['id']}/content"
    content = gateway.session.get(output["url"], headers={"Range": "bytes=2-4"}, timeout=20)
    assert (content.status_code, content.content) == (206, b"234")
    assert content.headers["Content-Type"] == "image/png"
    about = gateway.ask("GET", f"/api/v2/assets/{output['id']}").json()
    assert (about["job_id"], about["size_bytes"]) == (made["id"], 10)
    workflow = gateway.ask("GET", f"/api/v2/jobs/{made['id']}/workflow").json()
    assert workflow == {"format": "api", "workflow": SAVE}


def test_events_end_with_the_outputs_before_the_status(gateway: Gateway, workers: Workers) -> None:
    workers.pause()
    job = gateway.submit(TALK)["id"]
    workers.go_on()
    seen = events(gateway, job)
    names = [name for name, _ in seen]
    assert names[0] == "status"
    assert seen[-1] == ("status", {"status": "succeeded", "queue_position": None})
    assert names.count("output") == 1
    assert {"progress", "preview"} <= set(names)
    progress = [data for name, data in seen if name == "progress"]
    assert progress[-1]["nodes_total"] == 2
    assert [each["value"] for each in progress] == sorted(each["value"] for each in progress)
    late = events(gateway, job)
    assert [name for name, _ in late] == ["output", "status"], "also for who comes late"
    (first,) = [data["id"] for name, data in seen if name == "output"]
    assert late[0][1]["id"] == first, "it is the same output"


def test_a_waiting_job_is_cancelled_at_once(gateway: Gateway, workers: Workers) -> None:
    workers.pause()
    first, second = gateway.submit(SAVE)["id"], gateway.submit(SAVE)["id"]
    assert gateway.job(second)["queue_position"] == 2
    answer = gateway.ask("POST", f"/api/v2/jobs/{first}/cancel")
    assert (answer.status_code, answer.json()["status"]) == (200, "canceled")
    time.sleep(0.6)
    assert gateway.job(second)["queue_position"] == 1
    again = gateway.ask("POST", f"/api/v2/jobs/{first}/cancel")
    assert again.json()["status"] == "canceled", "a second time nothing happens"


def test_a_running_job_is_cancelled_by_its_worker(gateway: Gateway, workers: Workers) -> None:
    job = gateway.submit({"1": node("Hold")})["id"]
    while gateway.job(job)["status"] != "running":
        time.sleep(0.05)
    answer = gateway.ask("POST", f"/api/v2/jobs/{job}/cancel").json()
    assert answer["status"] in ("canceling", "canceled")
    assert gateway.job(job, wait=10)["status"] == "canceled"


def test_a_failed_job_says_why_and_can_be_tried_again(gateway: Gateway, workers: Workers) -> None:
    job = gateway.submit({"1": node("Break")})["id"]
    done = gateway.job(job, wait=10)
    assert done["status"] == "failed"
    assert done["error"] == {
        "code": "ValueError",
        "message": "it broke",
        "node_id": "1",
        "class_type": "Break",
        "traceback": None,
    }
    again = gateway.ask("POST", f"/api/v2/jobs/{job}/retry").json()
    assert (again["status"], again["error"], again["attempt"]) == ("queued", None, 0)
    assert gateway.job(job, wait=10)["status"] == "failed"
    saved = gateway.submit(SAVE)["id"]
    gateway.job(saved, wait=10)
    refused = gateway.ask("POST", f"/api/v2/jobs/{saved}/retry")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "invalid_state")


def test_what_can_run_nowhere_is_refused(gateway: Gateway, workers: Workers) -> None:
    for workflow, code, says in [
        ({"1": node("Nowhere")}, "invalid_workflow", "no instance has node class Nowhere"),
        (
            {"1": node("Save", ckpt_name="none.safetensors")},
            "invalid_workflow",
            "no instance has model checkpoints/none.safetensors",
        ),
        ({"nodes": [], "links": []}, "workflow_format_ui", "API format"),
        ({}, "invalid_workflow", "'workflow' is missing"),
        ({"1": {"inputs": {}}}, "invalid_workflow", "node 1 has no class_type"),
        (
            {"1": node("LoadImage", image={"__type": "core/ASSET", "info": {"id": "x"}})},
            "missing_asset",
            "there is no asset x",
        ),
        ({"1": node("LoadImage", image={"__type": "core/ASSET"})}, "missing_asset", "no asset"),
    ]:
        error = gateway.submit(workflow, 422)["error"]
        assert error["code"] == code
        assert says in error["message"]


def test_without_instances_everything_may_wait(gateway: Gateway) -> None:
    assert gateway.submit({"1": node("Nowhere", m="none.safetensors")})["status"] == "queued"


def test_what_else_is_refused(gateway: Gateway) -> None:
    cases: list[tuple[dict[str, Any], int, str]] = [
        ({"metadata": {str(n): "" for n in range(17)}}, 422, "metadata_invalid"),
        ({"metadata": {"a": 1}}, 422, "metadata_invalid"),
        ({"metadata": "text"}, 422, "metadata_invalid"),
        ({"priority": "high"}, 422, "invalid_request"),
        ({"inputs": {"a": 1}}, 422, "invalid_workflow"),
        ({"extra_data": {"other": 1}}, 400, "invalid_request"),
        ({"extra_data": {"api_key_comfy_org": 1}}, 400, "invalid_request"),
        ({"extra_data": {"api_key_comfy_org": None}}, 400, "invalid_request"),
        ({"extra_data": {"api_key_comfy_org": "x" * 9000}}, 400, "invalid_request"),
        ({"headers": {"Idempotency-Key": "x" * 256}}, 400, "invalid_request"),
    ]
    for about, status, code in cases:
        assert gateway.submit(SAVE, status, **about)["error"]["code"] == code


@pytest.mark.parametrize(
    "url", ["done", "ftp://a/b", "http:///b", "https://a:b/", "http://a/\n", 7,
            "http://a/" + "b" * 2048]
)  # fmt: skip
def test_a_webhook_that_is_none_is_refused(gateway: Gateway, url: Any) -> None:
    error = gateway.submit(SAVE, 422, webhook_url=url)["error"]
    assert error["message"].startswith("'webhook_url' is no http or https URL of up to 2048 char")
    secret = gateway.submit(SAVE, 422, webhook_url="http://me:secret@a/")["error"]["message"]
    assert secret == "'webhook_url' holds a password, which everybody would see"


def test_a_job_says_who_is_told_of_its_end(gateway: Gateway) -> None:
    told = gateway.submit(SAVE, webhook_url="https://a.example/done?token=secret")["webhook"]
    assert told == {
        "url": "https://a.example/done", "status": "pending", "attempts": 0,
        "next_attempt_at": None, "delivered_at": None, "error": None,
    }  # fmt: skip
    assert gateway.submit(SAVE)["webhook"] is None


def test_refusals_have_one_form(gateway: Gateway) -> None:
    for method, path, status in [
        ("GET", "/api/v2/jobs/none", 404),
        ("GET", "/api/v2/jobs/5f0f5e7c-7d1c-4c1c-9a53-0d6f1d0c9d1b", 404),
        ("POST", "/api/v2/jobs/5f0f5e7c-7d1c-4c1c-9a53-0d6f1d0c9d1b/cancel", 404),
        ("GET", "/api/v2/jobs/none/events", 404),
        ("GET", "/api/v2/jobs?limit=0", 400),
        ("GET", "/api/v2/jobs?status=lost", 400),
        ("GET", "/api/v2/jobs?cursor=none", 400),
        ("GET", "/api/v2/assets/..%2f..%2fws/content", 404),
        ("GET", "/api/v2/assets/none", 404),
        ("PUT", "/api/v2/jobs", 405),
        ("GET", "/api/v2/none", 404),
    ]:
        answer = gateway.ask(method, path)
        assert answer.status_code == status
        assert set(answer.json()["error"]) == {"code", "message", "details"}


def test_a_body_that_is_no_json_object(gateway: Gateway) -> None:
    for body in [b"", b"[]", b"{", b'{"workflow": NaN}', b"[" * 100_000]:
        answer = gateway.ask("POST", "/api/v2/jobs", data=body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request")


def test_a_workflow_that_is_too_large(gateway: Gateway) -> None:
    error = gateway.submit({"1": node("Save", text="x" * (33 << 20))}, 413)["error"]
    assert error["code"] == "payload_too_large"
    answer = gateway.ask("POST", "/api/v2/jobs", data=b" " * (36 << 20))
    assert answer.status_code == 413


def test_an_idempotency_key_is_one_job(gateway: Gateway) -> None:
    key = {"Idempotency-Key": "once"}
    made = gateway.submit(SAVE, headers=key)
    error = gateway.submit(SAVE, 422, headers=key)["error"]
    assert (error["code"], error["details"]) == ("idempotency_key_reuse", {"job_id": made["id"]})
    gateway.end()
    gateway.start()
    assert gateway.submit(SAVE, 422, headers=key)["error"]["details"] == {"job_id": made["id"]}


def test_the_list_goes_by_pages_from_the_newest_on(gateway: Gateway) -> None:
    made = [gateway.submit(SAVE, metadata={"even": str(n % 2 == 0)})["id"] for n in range(7)]

    def listed(**query: Any) -> list[str]:
        found: list[str] = []
        while True:
            page = gateway.ask("GET", "/api/v2/jobs", params=query).json()
            assert len(page["jobs"]) <= query["limit"]
            found += [each["id"] for each in page["jobs"]]
            if "next_cursor" not in page:
                return found
            query["cursor"] = page["next_cursor"]

    assert listed(limit=3) == made[::-1]
    assert listed(limit=7) == made[::-1]
    assert listed(limit=2, **{"metadata[even]": "True"}) == made[::-2]
    gateway.ask("POST", f"/api/v2/jobs/{made[0]}/cancel")
    assert listed(limit=5, status="canceled,failed") == made[:1]


def test_a_large_workflow_is_stored_as_well(gateway: Gateway, workers: Workers) -> None:
    workflow = {"1": node("Save", text="x" * 3_000_000)}
    job = gateway.submit(workflow)["id"]
    assert gateway.ask("GET", f"/api/v2/jobs/{job}/workflow").json()["workflow"] == workflow
    assert gateway.job(job, wait=10)["status"] == "succeeded"


def test_the_queue_is_paused(gateway: Gateway) -> None:
    gateway.submit(SAVE)
    assert gateway.ask("GET", "/api/v2/queue").json() == {
        "paused": False,
        "queued": 1,
        "running": 0,
    }
    for _ in range(2):
        assert gateway.ask("POST", "/api/v2/queue/pause").json()["paused"] is True
    for _ in range(2):
        assert gateway.ask("POST", "/api/v2/queue/resume").json()["paused"] is False


def test_a_full_queue_says_when_to_come_again(server: Server, tmp_path: Path) -> None:
    gateway = Gateway(tmp_path, server.url, max_queued=2)
    for _ in range(2):
        gateway.submit(SAVE)
    answer = gateway.ask("POST", "/api/v2/jobs", json={"workflow": SAVE})
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "queue_full")
    assert int(answer.headers["Retry-After"]) > 0
    gateway.end()


def test_with_a_token_each_request_needs_it(server: Server, tmp_path: Path) -> None:
    gateway = Gateway(tmp_path, server.url, token="sécret")
    gateway.session.headers["Authorization"] = "Bearer sécret".encode()
    assert gateway.submit(SAVE)["owner"] == "owner"
    for header in ("", "Bearer wrong", "Basic sécret".encode()):
        gateway.session.headers["Authorization"] = header
        answer = gateway.ask("GET", "/api/v2/jobs")
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthorized")
    gateway.end()


def test_without_a_token_no_web_page_is_answered(gateway: Gateway) -> None:
    for headers in [{"Host": "evil.example"}, {"Origin": "https://evil.example"}]:
        assert gateway.ask("GET", "/api/v2/jobs", headers=headers).status_code == 403
        local = {"Host": "localhost:1", "Origin": "http://[::1]:3000"}
        assert gateway.ask("GET", "/api/v2/jobs", headers=local).status_code == 200


def test_jobs_take_turns_by_the_user_whom_a_client_names(gateway: Gateway) -> None:
    made = gateway.ask(
        "POST", "/api/v2/jobs", json={"workflow": SAVE, "metadata": {"user": "ann"}}
    ).json()
    assert made["owner"] == "ann"
    assert gateway.submit(SAVE)["owner"] == "local"
