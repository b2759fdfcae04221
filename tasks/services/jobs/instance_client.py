"""What a worker asks its instance: to run, to end and to look for a job. Blocking; it is called in
threads. Source of the answers: ComfyUI 0.3.64 and 0.33.0, `server.py` and `execution.py`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from ...host.comfyui import api
from .record import Error
from .stored_workflow import unpack

TIMEOUT = 10.0
"""Seconds; an instance that loads a checkpoint answers within a second."""
MARK = "comfy_machine"
"""The key of `extra_data` that tells a job of ours, and its attempt."""
OUT_OF_MEMORY = "OutOfMemoryError"
"""The name of torch's exception; its module differs between versions."""

Place = Literal["running", "waiting"]


class Away(Exception):  # noqa: N818  reads as what is the case
    """The instance doesn't answer, or not like ComfyUI; `gone`: nothing listens at its port."""

    def __init__(self, why: str, *, gone: bool = False) -> None:
        super().__init__(why)
        self.gone = gone


class Refused(Exception):  # noqa: N818  reads as what happened
    """The instance doesn't take the job, for good: `error` has its reason."""

    def __init__(self, error: Error) -> None:
        super().__init__(error.message)
        self.error = error


class Busy(Exception):  # noqa: N818  reads as what is the case
    """The instance takes no jobs now."""


@dataclass(frozen=True)
class Ended:
    """How a job ended at the instance."""

    outputs: dict[str, Any]
    error: Error | None = None
    interrupted: bool = False

    @property
    def out_of_memory(self) -> bool:
        return self.error is not None and self.error.type.rpartition(".")[2] == OUT_OF_MEMORY


@dataclass(frozen=True)
class Queued:
    """A job of ours in the instance's queue; `attempt` 0: not one of ours."""

    id: str
    place: Place
    attempt: int


@dataclass(frozen=True)
class InstanceClient:
    """One instance. Methods raise Away."""

    url: str

    def post(self, job: str, attempt: int, workflow: bytes, client: str) -> None:
        """Queue a job under its id. Raises Refused, and Busy."""
        graph, extra = unpack(workflow)
        body = {
            "prompt": graph,
            "prompt_id": job,
            "client_id": client,
            "extra_data": {**extra, MARK: attempt},
        }
        answer = self._ask("/prompt", body)
        if answer.status == api.REFUSED:
            raise Refused(_refusal(answer))
        if answer.status == 503:
            raise Busy(self.url)
        if answer.status != api.OK:
            raise Away(f"{self.url} answered {answer.status}")

    def queue(self) -> list[Queued]:
        document = self._json("/queue")
        places: tuple[tuple[Place, str], ...] = (
            ("running", "queue_running"),
            ("waiting", "queue_pending"),
        )
        try:
            return [
                Queued(str(entry[1]), place, _mark(entry))
                for place, key in places
                for entry in document[key]
            ]
        except (LookupError, TypeError):
            raise Away(f"{self.url} doesn't answer like ComfyUI") from None

    def ended(self, job: str) -> tuple[Ended, int] | None:
        """How the job ended, and which attempt that was; None: the instance has no such end."""
        document = self._json(f"/history/{job}")
        try:
            entry = document.get(job)
            return (_end(entry), _mark(entry["prompt"])) if entry else None
        except (LookupError, TypeError, AttributeError):
            raise Away(f"{self.url} doesn't answer like ComfyUI") from None

    def end(self, job: str) -> None:
        """Take the job out of the queue, and interrupt it if it runs."""
        self._ask("/queue", {"delete": [job]})
        # Versions before 0.3.50 interrupt whatever runs: look first.
        if any(each.id == job and each.place == "running" for each in self.queue()):
            self._ask("/interrupt", {"prompt_id": job})

    def free(self) -> None:
        """Unload all models, and forget all results, before the next job."""
        self._ask("/free", {"unload_models": True, "free_memory": True})

    def remaining(self) -> int:
        """How many jobs run and wait."""
        try:
            return int(self._json("/prompt")["exec_info"]["queue_remaining"])
        except (LookupError, TypeError, ValueError):
            raise Away(f"{self.url} doesn't answer like ComfyUI") from None

    def memory(self) -> int | None:
        """Bytes of its GPU; None: it has none, or it doesn't tell."""
        try:
            device = self._json("/system_stats")["devices"][0]
            return None if device["type"] == "cpu" else int(device["vram_total"])
        except (LookupError, TypeError, ValueError):
            return None

    def classes(self) -> tuple[str, ...]:
        """Its node classes."""
        return tuple(sorted(self._json("/object_info")))

    def models(self) -> tuple[str, ...]:
        """Its models, as folder/name."""
        return tuple(
            sorted(
                f"{folder}/{name}"
                for folder in self._json("/models")
                for name in self._json(f"/models/{folder}")
                if folder != "custom_nodes"
            )
        )

    def _json(self, path: str) -> Any:
        answer = self._ask(path)
        if answer.status != api.OK:
            raise Away(f"{self.url}{path} answered {answer.status}")
        try:
            return answer.json()
        except (ValueError, RecursionError):
            raise Away(f"{self.url} doesn't answer like ComfyUI") from None

    def _ask(self, path: str, body: Any = None) -> api.Answer:
        place = urlsplit(self.url)
        client = api.Client(
            place.hostname or "", place.port or 80, TIMEOUT, scheme=place.scheme or "http"
        )
        try:
            return client.request(path, body)
        except OSError as error:
            gone = isinstance(error, ConnectionRefusedError)
            raise Away(f"{self.url} doesn't answer ({type(error).__name__})", gone=gone) from None


def _mark(entry: Any) -> int:
    """The attempt of a job of ours; 0: another's. An entry is number, id, prompt, extra data, …"""
    extra = entry[3] if len(entry) > 3 and isinstance(entry[3], dict) else {}
    found = extra.get(MARK, 0)
    return found if isinstance(found, int) else 0


def _end(entry: dict[str, Any]) -> Ended:
    status = entry.get("status") or {}
    outputs = entry.get("outputs") or {}
    if status.get("status_str") == "success":
        return Ended(outputs)
    said = dict(status.get("messages") or [])
    if details := said.get("execution_error"):
        return Ended(
            outputs,
            Error(
                type=_text(details, "exception_type"),
                message=_text(details, "exception_message").strip(),
                node=_text(details, "node_id"),
                node_type=_text(details, "node_type"),
            ),
        )
    if "execution_interrupted" in said:
        return Ended(outputs, interrupted=True)
    return Ended(outputs, Error(type="unknown", message="ComfyUI gives no reason"))


def _refusal(answer: api.Answer) -> Error:
    """The errors of nodes say more, such as which model is missing."""
    try:
        document = answer.json()
        for node, found in (document.get("node_errors") or {}).items():
            for error in found["errors"]:
                message = f"{error['message']}: {error['details']}".strip(": ")
                return Error(
                    type=_text(error, "type"),
                    message=message[: api.LONGEST_REASON],
                    node=str(node),
                    node_type=_text(found, "class_type"),
                )
        error = document["error"]
        message = f"{error['message']} {error['details']}".strip()
        return Error(type=_text(error, "type"), message=message[: api.LONGEST_REASON])
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        said = answer.content[: api.SHOWN].decode(errors="replace")
        return Error(type="invalid_prompt", message=said)


def _text(found: dict[str, Any], key: str) -> str:
    return str(found.get(key, ""))[: api.LONGEST_REASON]
