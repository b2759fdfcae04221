"""/api/jobs: jobs of any state in one shape, where there is such an API."""

from __future__ import annotations

import uuid

import pytest

from tests.contract.client import Client, messages, picture, preview, save, until
from tests.contract.features import UNKNOWN_ID, Features
from tests.contract.installation import WAITING_NODE, Installation


@pytest.fixture
def api(server: Client, features: Features) -> Client:
    """A server with the API."""
    if not features.job_api:
        for path in ("/api/jobs", f"/api/jobs/{UNKNOWN_ID}", "/jobs"):
            assert server.get(path).status_code == 404
        pytest.skip("this ComfyUI has no /api/jobs")
    return server


def test_a_done_job_is_told_with_its_outputs_and_prompt(api: Client) -> None:
    prompt = {"1": picture(), "2": preview("1"), "3": save("1", f"contract/{uuid.uuid4().hex}")}
    workflow = {"id": uuid.uuid4().hex}
    prompt_id = api.queue(prompt, extra_data={"extra_pnginfo": {"workflow": workflow}})
    entry = api.result(prompt_id)
    job = api.json(f"/api/jobs/{prompt_id}")
    assert (job["id"], job["status"], job["workflow_id"]) == (
        prompt_id,
        "completed",
        workflow["id"],
    )
    assert job["create_time"] == entry["prompt"][3]["create_time"]
    assert job["execution_start_time"] <= job["execution_end_time"]
    assert (job["outputs_count"], job["previewable_outputs_count"]) == (2, 2)
    (saved,) = entry["outputs"]["3"]["images"]
    shown = {**saved, "nodeId": "3", "mediaType": "images"}
    assert job["preview_output"] == shown, "a saved image before a preview"
    assert job["outputs"] == entry["outputs"]
    assert job["execution_status"] == entry["status"]
    assert job["workflow"]["prompt"] == prompt
    assert "execution_error" not in job

    listed = api.json("/api/jobs", workflow_id=workflow["id"])
    assert listed["pagination"] == {"offset": 0, "limit": None, "total": 1, "has_more": False}
    (found,) = listed["jobs"]
    assert found == {name: job[name] for name in found}
    assert set(job) - set(found) == {"outputs", "execution_status", "workflow"}


def test_a_failed_job_says_why(api: Client) -> None:
    prompt_id = api.queue({"1": picture(), "2": save("1", "../../outside")})
    entry = api.result(prompt_id)
    job = api.json(f"/api/jobs/{prompt_id}")
    assert job["status"] == "failed"
    assert job["execution_error"] == messages(entry)["execution_error"]
    assert job["outputs_count"] == 0
    failed = api.json("/api/jobs", status="failed,cancelled")["jobs"]
    assert prompt_id in [found["id"] for found in failed]
    assert {found["status"] for found in failed} <= {"failed", "cancelled"}


def test_jobs_are_listed_in_pages_newest_first(api: Client) -> None:
    ids = [api.queue({"1": picture(), "2": preview("1")}) for _ in range(3)]
    for prompt_id in ids:
        api.result(prompt_id)
    page = api.json("/api/jobs", limit="1", offset="1")
    assert len(page["jobs"]) == 1
    assert page["pagination"]["has_more"] is True
    times = [job["create_time"] for job in api.json("/api/jobs")["jobs"]]
    assert times == sorted(times, reverse=True)
    times = [job["create_time"] for job in api.json("/api/jobs", sort_order="asc")["jobs"]]
    assert times == sorted(times)


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("status", "done", "Invalid status value(s): done. Valid values: pending, in_progress, "),
        ("sort_by", "name", "sort_by must be"),
        ("sort_order", "up", "sort_order must be"),
        ("limit", "0", "limit must be a positive integer"),
        ("limit", "all", "limit must be an integer"),
        ("offset", "far", "offset must be an integer"),
    ],
)
def test_a_wrong_parameter_is_400(api: Client, name: str, value: str, problem: str) -> None:
    response = api.get("/api/jobs", **{name: value})
    assert response.status_code == 400
    assert response.json()["error"].startswith(problem)


def test_an_unknown_job_is_404(api: Client) -> None:
    response = api.get(f"/api/jobs/{UNKNOWN_ID}")
    assert response.status_code == 404
    assert response.json() == {"error": "Job not found"}


@pytest.mark.parametrize(
    "body", [b"no json", b"[]", b"{}", b'{"job_ids": "a"}', b'{"job_ids": ["a", 1, [2]]}']
)
def test_a_wrong_list_of_jobs_to_cancel_is_400(
    api: Client, features: Features, body: bytes
) -> None:
    wanted = 400 if features.cancelling else 405
    assert api.post("/api/jobs/cancel", data=body).status_code == wanted


def test_jobs_are_cancelled_whatever_their_state(comfyui: Installation) -> None:
    base = comfyui.base()
    base.add("custom_nodes/waiting/__init__.py", WAITING_NODE)
    server = comfyui.start(base)
    wait = {"class_type": "WaitForFile", "inputs": {"path": str(base.path / "end")}}
    running = server.queue({"1": wait})
    until(lambda: server.running() == [running], comfyui.start_timeout, "the job to run")
    pending = [server.queue({"1": picture(), "2": preview("1")}) for _ in range(3)]
    if not server.post(f"/api/jobs/{UNKNOWN_ID}/cancel").ok:
        pytest.skip("this ComfyUI cancels no job by its id alone")

    def cancel(prompt_id: str) -> bool:
        answer = server.post(f"/api/jobs/{prompt_id}/cancel")
        assert answer.status_code == 200
        found: bool = answer.json()["cancelled"]
        return found

    assert server.json(f"/api/jobs/{running}")["status"] == "in_progress"
    assert server.json(f"/api/jobs/{pending[0]}")["status"] == "pending"
    assert cancel(pending[0])
    assert server.get(f"/api/jobs/{pending[0]}").status_code == 404, "it is forgotten"
    several = {"job_ids": [pending[1], UNKNOWN_ID]}
    assert server.post("/api/jobs/cancel", json=several).json() == {"cancelled": True}
    assert server.pending() == [pending[2]]
    assert cancel(running)
    assert messages(server.result(running))["execution_interrupted"]
    assert server.json(f"/api/jobs/{running}")["status"] == "cancelled"
    assert server.result(pending[2])["status"]["completed"], "only the running job was interrupted"
    assert not cancel(running)
    assert not cancel(UNKNOWN_ID)
