"""/api/jobs, since 2026: jobs of any state in one shape, and cancellation of one by its id."""

from __future__ import annotations

import json
import logging
import uuid
from typing import Any

from simulation.http import web
from simulation.jobs import Job, PromptQueue

STATES = ["pending", "in_progress", "completed", "failed", "cancelled"]
INVALID_ID = {
    "type": "invalid_prompt_id",
    "message": "prompt_id must be a valid UUID",
    "details": "prompt_id must be a UUID string in canonical lowercase hyphenated form; omit it to"
    " let the server generate one",
    "extra_info": {},
}
_PREVIEWABLE = {"images", "video", "audio", "3d", "text"}


def is_job_id(value: Any) -> bool:
    """Whether it is a UUID as a string, in the canonical lowercase form."""
    try:
        return isinstance(value, str) and str(uuid.UUID(value)) == value
    except ValueError:
        return False


def _known(entry: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if value is not None}


def _head(job: Job, state: str) -> dict[str, Any]:
    number, prompt_id, _, extra, _ = job
    workflow = (extra.get("extra_pnginfo") or {}).get("workflow") or {}
    return {
        "id": prompt_id,
        "status": state,
        "priority": number,
        "create_time": extra.get("create_time"),
        "workflow_id": workflow.get("id"),
    }


def _waiting(job: Job, state: str) -> dict[str, Any]:
    return _known(_head(job, state) | {"outputs_count": 0, "previewable_outputs_count": 0})


def _done(entry: dict[str, Any]) -> dict[str, Any]:
    status = entry["status"]
    messages = dict(status["messages"])
    interrupted = "execution_interrupted" in messages
    state = "completed"
    if status["status_str"] == "error":
        state = "cancelled" if interrupted else "failed"
    ends = ("execution_success", "execution_error", "execution_interrupted")
    end: dict[str, Any] = next((messages[name] for name in ends if name in messages), {})
    files = [
        {**item, "nodeId": node_id, "mediaType": kind}
        for node_id, shown in entry["outputs"].items()
        for kind, items in shown.items()
        if isinstance(items, list)
        for item in items
        if isinstance(item, dict)
    ]
    seen = [file for file in files if file["mediaType"] in _PREVIEWABLE]
    saved = [file for file in seen if file.get("type") == "output"]
    return _known(
        _head(entry["prompt"], state)
        | {
            "execution_start_time": messages.get("execution_start", {}).get("timestamp"),
            "execution_end_time": end.get("timestamp"),
            "execution_error": messages.get("execution_error"),
            "outputs_count": len(files),
            "previewable_outputs_count": len(seen),
            "preview_output": next(iter([*saved, *seen]), None),
        }
    )


def _duration(job: dict[str, Any]) -> int:
    begin, end = job.get("execution_start_time", 0), job.get("execution_end_time", 0)
    return end - begin if begin and end else 0


class JobApi:
    """The routes. They stand below /api only."""

    def __init__(self, queue: PromptQueue) -> None:
        self._queue = queue

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/api/jobs", self.list_jobs),
            web.get("/api/jobs/{job_id}", self.get_job),
            web.post("/api/jobs/{job_id}/cancel", self.cancel),
            web.post("/api/jobs/cancel", self.cancel_several),
        ]

    async def list_jobs(self, request: web.Request) -> web.Response:
        """Newest first, unless it is asked otherwise."""
        query = request.query
        wanted = [s.strip().lower() for s in query.get("status", "").split(",") if s.strip()]
        wrong = [state for state in wanted if state not in STATES]
        sort_by = query.get("sort_by", "created_at").lower()
        order = query.get("sort_order", "desc").lower()
        if wrong:
            known = ", ".join(STATES)
            return _bad(f"Invalid status value(s): {', '.join(wrong)}. Valid values: {known}")
        if sort_by not in ("created_at", "execution_duration"):
            return _bad("sort_by must be 'created_at' or 'execution_duration'")
        if order not in ("asc", "desc"):
            return _bad("sort_order must be 'asc' or 'desc'")
        try:
            limit = int(query["limit"]) if "limit" in query else None
            if limit is not None and limit <= 0:
                return _bad("limit must be a positive integer")
        except ValueError:
            return _bad("limit must be an integer")
        try:
            offset = max(0, int(query.get("offset", 0)))
        except ValueError:
            return _bad("offset must be an integer")
        jobs = [job for job in self._all() if not wanted or job["status"] in wanted]
        if query.get("workflow_id"):
            jobs = [job for job in jobs if job.get("workflow_id") == query["workflow_id"]]
        key = _duration if sort_by == "execution_duration" else _created
        jobs.sort(key=key, reverse=order == "desc")
        total = len(jobs)
        shown = jobs[offset : None if limit is None else offset + limit]
        more = offset + len(shown) < total
        pages = {"offset": offset, "limit": limit, "total": total, "has_more": more}
        return web.json_response({"jobs": shown, "pagination": pages})

    def _all(self) -> list[dict[str, Any]]:
        running, pending = self._queue.snapshot()
        return [
            *(_waiting(job, "in_progress") for job in running),
            *(_waiting(job, "pending") for job in pending),
            *(_done(entry) for entry in self._queue.history().values()),
        ]

    async def get_job(self, request: web.Request) -> web.Response:
        prompt_id = request.match_info["job_id"]
        entry = self._queue.done(prompt_id).get(prompt_id)
        if entry is not None:
            _, _, prompt, extra, _ = entry["prompt"]
            whole = {
                "outputs": entry["outputs"],
                "execution_status": entry["status"],
                "workflow": {"prompt": prompt, "extra_data": extra},
            }
            return web.json_response(_done(entry) | whole)
        for jobs, state in zip(self._queue.snapshot(), ("in_progress", "pending"), strict=True):
            for job in jobs:
                if job[1] == prompt_id:
                    return web.json_response(_waiting(job, state))
        return web.json_response({"error": "Job not found"}, status=404)

    async def cancel(self, request: web.Request) -> web.Response:
        """End one job; one that is done or unknown is none to end, and no error."""
        return web.json_response({"cancelled": self._cancel(request.match_info["job_id"])})

    async def cancel_several(self, request: web.Request) -> web.Response:
        try:
            data = await request.json()
        except json.JSONDecodeError:
            return _bad("Request body must be valid JSON")
        ids = data.get("job_ids") if isinstance(data, dict) else None
        if not isinstance(ids, list):
            return _bad("job_ids must be a list")
        wrong = [value if isinstance(value, str) else repr(value) for value in ids
                 if not is_job_id(value)]  # fmt: skip
        if wrong:
            answer = {"error": "job_ids contains invalid id(s)", "invalid_ids": wrong}
            return web.json_response(answer, status=400)
        cancelled = [self._cancel(value) for value in ids]
        return web.json_response({"cancelled": any(cancelled)})

    def _cancel(self, prompt_id: str) -> bool:
        if self._queue.delete(prompt_id):
            logging.info("Cancelling pending prompt %s", prompt_id)
            return True
        return self._queue.interrupt_if_running(prompt_id)


def _created(job: dict[str, Any]) -> int:
    return int(job.get("create_time", 0))


def _bad(problem: str) -> web.Response:
    return web.json_response({"error": problem}, status=400)
