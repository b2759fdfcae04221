"""Jobs as ComfyUI itself shows them in its queue, its history and its messages."""

from __future__ import annotations

from typing import Any

from ..jobs.record import Record
from .submission import Workflow

Json = dict[str, Any]


def queued(record: Record, workflow: Workflow, extra: Json) -> list[Any]:
    """An entry of /queue."""
    extra = {**extra, "client_id": record.client, "create_time": round(record.submitted * 1000)}
    return [record.submitted, record.id, workflow, extra, []]


def history(record: Record, workflow: Workflow, extra: Json) -> Json:
    """An entry of /history."""
    done = record.state == "succeeded"
    extra = {**extra, "client_id": record.client, "create_time": round(record.submitted * 1000)}
    return {
        "prompt": [record.submitted, record.id, workflow, extra, [*record.outputs]],
        "outputs": record.outputs,
        "status": {
            "status_str": "success" if done else "error",
            "completed": done,
            "messages": [
                ["execution_start", _about(record, record.started or record.submitted)],
                [*end_of(record)],
            ],
        },
        "meta": {},
    }


def end_of(record: Record) -> tuple[str, Json]:
    """The message, by type and data, with which a job that has ended did so."""
    about = _about(record, record.ended)
    if record.state == "succeeded":
        return "execution_success", about
    if record.state == "cancelled":
        return "execution_interrupted", {
            **about, "node_id": None, "node_type": None, "executed": []
        }  # fmt: skip
    error = record.error
    return "execution_error", {
        **about,
        "node_id": error.node if error else "",
        "node_type": error.node_type if error else "",
        "executed": [],
        "exception_message": error.message if error else "",
        "exception_type": error.type if error else "",
        "traceback": [],
        "current_inputs": {},
        "current_outputs": [],
    }


def refusal(kind: str, message: str) -> Json:
    """Why a prompt isn't taken."""
    error = {"type": kind, "message": message, "details": message, "extra_info": {}}
    return {"error": error, "node_errors": {}}


def _about(record: Record, at: float) -> Json:
    return {"prompt_id": record.id, "timestamp": round(at * 1000)}
