"""What some ComfyUIs have and others lack, told by their answers and never by their version."""

from __future__ import annotations

from dataclasses import dataclass

from .client import Client

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
    """Extra data of queue and history tell when a job was queued."""
    missing_node_type: bool
    """A prompt with an unknown node has an error type of its own."""
    asset_routes: bool
    """/api/assets is there, on or off."""
    details: bool
    """/system_stats and /object_info tell more than they used to."""
    cross_site_refused: bool
    """A browser's request from a page of another site is refused, whatever its origin."""


def ask(server: Client) -> Features:
    """Ask a server, with requests that change nothing: no job of these is ever queued."""
    unknown = {"1": {"class_type": "NoSuch", "inputs": {}}}
    # An id is looked at before the prompt is.
    refused = server.post("/prompt", json={"prompt": unknown, "prompt_id": "no-uuid"}).json()
    cross_site = server.get_with({"Sec-Fetch-Site": "cross-site"}, "/prompt")
    return Features(
        job_api=server.get("/api/jobs").ok,
        cancelling=server.post(f"/api/jobs/{UNKNOWN_ID}/cancel").ok,
        checked_ids=refused["error"]["type"] == "invalid_prompt_id",
        creation_times=server.get("/api/jobs").ok,
        missing_node_type=server.refusal(unknown)["error"]["type"] == "missing_node_type",
        asset_routes=server.get("/api/assets").status_code != 404,
        details="deploy_environment" in server.json("/system_stats")["system"],
        cross_site_refused=cross_site.status_code == 403,
    )
