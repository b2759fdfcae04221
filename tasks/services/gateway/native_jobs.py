"""ComfyUI's /api/jobs: all jobs in one shape, which its page lists."""

from __future__ import annotations

from itertools import islice
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ..jobs.record import ENDED, Record
from .job_desk import JobDesk, is_id
from .native_answers import end_of, history
from .refused import Refused
from .requested import json_object, number
from .submission import Workflow

STATUS = {
    "waiting": "pending",
    "leased": "in_progress",
    "succeeded": "completed",
    "failed": "failed",
    "dead": "failed",
    "cancelled": "cancelled",
}
"""State of a record → status."""
SORTED, ORDERS = ("created_at", "execution_duration"), ("asc", "desc")
MOST_LISTED, MOST_CANCELLED = 1000, 1000
"""Jobs of one answer, and of one request."""
SHOWN = ("images", "video", "audio", "3d", "text", "gifs")
"""ComfyUI's names of lists whose files its page can show."""
Json = dict[str, Any]


class NativeJobs:
    """Its endpoints; `router` has them all."""

    def __init__(self, desk: JobDesk) -> None:
        self._desk = desk
        self.router = APIRouter(prefix="/api/jobs")
        self.router.add_api_route("", self.list, methods=["GET"])
        self.router.add_api_route("/cancel", self.cancel_all, methods=["POST"])
        self.router.add_api_route("/{job}", self.get, methods=["GET"])
        self.router.add_api_route("/{job}/cancel", self.cancel, methods=["POST"])

    async def list(self, request: Request) -> Response:
        """All jobs: `status`, `sort_by`, `sort_order`, `limit`, `offset`."""
        states, by, order = _wanted(request)
        limit = int(number(request, "limit", MOST_LISTED, 1, 1e9))
        offset = int(number(request, "offset", 0, -1e9, 1e9))
        offset, limit = max(offset, 0), min(limit, MOST_LISTED)
        found = [
            each for each in self._desk.view.newest() if not states or STATUS[each.state] in states
        ]
        if by == "execution_duration":
            found.sort(key=_duration, reverse=True)
        if order == "asc":
            found.reverse()
        page = [_job(each) for each in islice(found, offset, offset + limit)]
        asked = limit if "limit" in request.query_params else None
        about = {"offset": offset, "limit": asked, "total": len(found)}
        more = offset + len(page) < len(found)
        return JSONResponse({"jobs": page, "pagination": {**about, "has_more": more}})

    async def get(self, job: str) -> Response:
        """A job, with its outputs and its workflow."""
        try:
            record = (await self._desk.find(job)).record
        except Refused as refused:
            if refused.status != 404:
                raise
            return JSONResponse({"error": "Job not found"}, 404)
        if record.state not in ENDED:
            return JSONResponse(_job(record))
        entry = history(record, *await self._workflow(record))
        _, _, prompt, extra, _ = entry["prompt"]
        return JSONResponse(
            {
                **_job(record),
                "outputs": record.outputs,
                "execution_status": entry["status"],
                "workflow": {"prompt": prompt, "extra_data": extra},
            }
        )

    async def _workflow(self, record: Record) -> tuple[Workflow, Json]:
        try:
            return await self._desk.workflow(record)
        except (Refused, ValueError):
            return {}, {}

    async def cancel(self, job: str) -> Response:
        """End a job that waits or runs."""
        return JSONResponse({"cancelled": await self._cancel(job)})

    async def cancel_all(self, request: Request) -> Response:
        """End those of `job_ids` that wait or run."""
        jobs = (await json_object(request)).get("job_ids")
        if not isinstance(jobs, list) or len(jobs) > MOST_CANCELLED:
            message = f"job_ids must be a list of {MOST_CANCELLED} at most"
            return JSONResponse({"error": message}, 400)
        if invalid := [each for each in jobs if not (isinstance(each, str) and is_id(each))]:
            message = "job_ids contains invalid id(s)"
            return JSONResponse({"error": message, "invalid_ids": [*map(str, invalid)]}, 400)
        cancelled = [await self._cancel(job) for job in jobs]
        return JSONResponse({"cancelled": any(cancelled)})

    async def _cancel(self, job: str) -> bool:
        """Whether it could be ended."""
        stored = self._desk.view.get(job) if is_id(job) else None
        if stored is None or stored.record.state in ENDED:
            return False
        await self._desk.cancel(job)
        return True


def _wanted(request: Request) -> tuple[set[str], str, str]:
    """Statuses, what to sort by, and in which order. Raises Refused."""
    query = request.query_params
    states = {each.strip().lower() for each in query.get("status", "").split(",") if each.strip()}
    by = query.get("sort_by", SORTED[0]).lower()
    order = query.get("sort_order", "desc").lower()
    if states - {*STATUS.values()} or by not in SORTED or order not in ORDERS:
        raise Refused(400, "invalid_request", "there is no such status, sort_by or sort_order")
    return states, by, order


def _job(record: Record) -> Json:
    """As ComfyUI lists it; what isn't known is left out."""
    files = [
        (node, kind, each)
        for node, lists in record.outputs.items()
        for kind, items in (lists.items() if isinstance(lists, dict) else ())
        for each in (items if isinstance(items, list) else ())
        if isinstance(each, dict)
    ]
    shown = [each for each in files if each[1] in SHOWN]
    shown.sort(key=lambda each: (each[1] == "text", each[2].get("type") != "output"))
    ended = record.state in ENDED
    kind, about = end_of(record) if ended else ("", {})
    found = {
        "id": record.id,
        "status": STATUS[record.state],
        "priority": record.submitted,
        "create_time": round(record.submitted * 1000),
        "execution_start_time": _milliseconds(record.started) if ended else None,
        "execution_end_time": _milliseconds(record.ended),
        "execution_error": about if kind == "execution_error" else None,
        "outputs_count": len(files),
        "previewable_outputs_count": len(shown),
        "preview_output": _preview(*shown[0]) if shown else None,
    }
    return {key: value for key, value in found.items() if value is not None}


def _preview(node: str, kind: str, file: Json) -> Json:
    return {**file, "nodeId": node, "mediaType": kind}


def _duration(record: Record) -> float:
    return record.ended - record.started if record.ended and record.started else 0.0


def _milliseconds(at: float) -> int | None:
    return round(at * 1000) if at else None
