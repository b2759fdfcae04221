"""What some ComfyUIs have and others lack, told by their answers and never by their version."""

from __future__ import annotations

from dataclasses import dataclass

from tests.contract.client import Client, picture, preview

TAG = "\x1b[32m[INFO]\x1b[0m "
UNKNOWN_ID = "00000000-0000-4000-8000-000000000000"


@dataclass(frozen=True)
class Features:
    """Of a running server."""

    job_api: bool
    """/api/jobs lists jobs of any state."""
    cancelling: bool
    """POST /api/jobs/{id}/cancel ends one."""
    checked_ids: bool
    """An id that a client chooses must be a UUID in its canonical form."""
    creation_times: bool
    """Extra data in queue and history say when a job was queued."""
    missing_node_type: bool
    """A prompt with an unknown node has an error type of its own."""
    asset_routes: bool
    """/api/assets is there, on or off."""
    details: bool
    """/system_stats and /object_info tell more than they used to."""
    cross_site_refused: bool
    """A browser's request from a page of another site is refused, whatever its origin."""
    tagged_log: bool
    """Each record of the log begins with its level in colour."""


def ask(server: Client) -> Features:
    """Ask a server, with nothing that it queues but one small job."""
    unknown = {"1": {"class_type": "NoSuch", "inputs": {}}}
    # The id is looked at before the prompt is.
    refused = server.post("/prompt", json={"prompt": unknown, "prompt_id": "no-uuid"}).json()
    cross_site = server.get_with({"Sec-Fetch-Site": "cross-site"}, "/prompt")
    done = server.run({"1": picture(), "2": preview("1")})
    return Features(
        job_api=server.get("/api/jobs").ok,
        cancelling=server.post(f"/api/jobs/{UNKNOWN_ID}/cancel").ok,
        checked_ids=refused["error"]["type"] == "invalid_prompt_id",
        creation_times="create_time" in done["prompt"][3],
        missing_node_type=server.refusal(unknown)["error"]["type"] == "missing_node_type",
        asset_routes=server.get("/api/assets").status_code != 404,
        details="deploy_environment" in server.json("/system_stats")["system"],
        cross_site_refused=cross_site.status_code == 403,
        tagged_log=f"{TAG}got prompt\n" in server.json("/internal/logs"),
    )
