"""The one client of ComfyUI's HTTP API, and the one probe."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..system.failure import Failure
from . import exchange

if TYPE_CHECKING:
    from email.message import Message

Answer = exchange.Answer
OK, REFUSED = 200, 400
PROBE_TIMEOUT = 2.0
"""Seconds; an idle instance answers in 1.4 ms, one that loads a checkpoint within a second."""
SHOWN = 200
"""Characters that are kept of an instance's own words."""
MOST_WAITING = 50
"""Waiting jobs that are named."""
MOST_RUNNING = 16
"""Running jobs that are listed; ComfyUI runs one at a time."""
SUBMITTED = "Comfy-Machine-Submitted"
"""The header of `services/inside/refusal.py`."""
LONGEST_REASON = 2000
"""Characters that are kept of ComfyUI's reason for refusing or failing a job."""
LONGEST_COUNT = 1 << 16
"""Bytes of the answer with the number of jobs."""
POLL = 0.1
"""Seconds between two checks while waiting."""


@dataclass(frozen=True)
class ProbeResult:
    """The result of a probe: healthy, or why not; and the number of jobs."""

    healthy: bool
    reason: str = ""
    queue: int | None = None
    refused: bool = field(default=False, compare=False)
    """Nothing listens on the port: the instance is starting or has ended."""
    answered: bool = field(default=True, compare=False)
    """False: there was no answer at all."""
    submitted: int | None = field(default=None, compare=False)
    """The instance refuses new jobs, but for this number that is being submitted; None: it takes
    new jobs."""


@dataclass(frozen=True)
class Jobs:
    """The ids of running jobs (at most one) and of the first waiting ones, and how many wait."""

    running: tuple[str, ...] = ()
    waiting: int = 0
    first_waiting: tuple[str, ...] = ()


class BadAnswer(OSError):  # noqa: N818  a name for what came
    """An answer that isn't one of ComfyUI's; `str()` says what it is."""


class ErrorAnswer(BadAnswer):
    """An answer with another code than 200."""


class RefusedJob(Failure):
    """ComfyUI didn't take a job; `str()` has its reason."""


class Client:
    """A client of one instance.

    Methods raise TimeoutError when no whole answer comes in time, BadAnswer, and other OSErrors
    when there is no connection.
    """

    def __init__(
        self, host: str, port: int, timeout: float = 10.0, *, scheme: str = "http"
    ) -> None:
        self._timeout = timeout
        self.url = url(host, port, scheme)

    def get(self, path: str) -> Any:
        return self._json(self.request(path))

    def submit(self, prompt: dict[str, Any], *, client: str = "", front: bool = False) -> str:
        """Queue a prompt and return its id; with `front` it is put before all waiting ones.

        `client` is its client id. Raises RefusedJob with ComfyUI's reason.
        """
        job = {"prompt": prompt, "front": front} | ({"client_id": client} if client else {})
        answer = self.request("/prompt", job)
        if answer.status == REFUSED:
            raise RefusedJob(f"{self.url} refused the job: {_refusal(answer)}")
        found = self._json(answer)
        if not isinstance(found, dict) or not isinstance(found.get("prompt_id"), str):
            raise BadAnswer("it doesn't answer like ComfyUI")
        return str(found["prompt_id"])

    def delete(self, prompt_id: str) -> None:
        """Remove a waiting prompt from the queue; a running one continues."""
        self._checked(self.request("/queue", {"delete": [prompt_id]}))

    def request(self, path: str, body: Any = None) -> Answer:
        """The answer, whatever its code: to a GET, or with `body` to a POST of it as JSON."""
        from http.client import HTTPException

        try:
            return exchange.request(self.url, path, self._timeout, body=body)
        except HTTPException as error:
            raise BadAnswer(f"it doesn't answer like ComfyUI ({type(error).__name__})") from None
        except ValueError as error:
            raise BadAnswer(str(error)[:SHOWN]) from None

    def _checked(self, answer: Answer) -> Answer:
        if answer.status != OK:
            raise ErrorAnswer(f"it answered {answer.status} {answer.reason[:SHOWN]}".strip())
        return answer

    def _json(self, answer: Answer) -> Any:
        try:
            return self._checked(answer).json()
        except (ValueError, RecursionError):
            raise BadAnswer("it doesn't answer like ComfyUI") from None

    def done(self, prompt_id: str) -> dict[str, Any] | None:
        """The history entry of a prompt; None: it isn't finished. Raises Failure when it ended in
        an error."""
        history = self.get(f"/history/{prompt_id}")
        entry = history.get(prompt_id, {}) if isinstance(history, dict) else None
        if not isinstance(entry, dict) or not isinstance(entry.get("status", {}), dict):
            raise BadAnswer("it doesn't answer like ComfyUI")
        if entry and entry.get("status", {}).get("status_str") != "success":
            raise Failure(f"{self.url}: job {prompt_id} ended in an error: {_error(entry)}")
        return entry or None

    def wait(self, prompt_id: str, timeout: float) -> dict[str, Any]:
        """The history entry of a finished prompt. Raises Failure after `timeout` seconds or
        when the job ended in an error."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if entry := self.done(prompt_id):
                return entry
            time.sleep(POLL)
        raise Failure(f"{self.url}: job {prompt_id} didn't finish within {timeout:g} s")


def url(host: str, port: int, scheme: str = "http") -> str:
    """The base URL at which this machine reaches an instance that listens on `host`."""
    reachable = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host.split(",")[0], host.split(",")[0])
    if ":" in reachable and not reachable.startswith("["):
        reachable = f"[{reachable}]"
    return f"{scheme}://{reachable}:{port}"


def probe(
    host: str, port: int, timeout: float | None = None, *, scheme: str = "http"
) -> ProbeResult:
    """Ask an instance whether it can work; never raises. `timeout` is in seconds, by default
    PROBE_TIMEOUT.

    `GET /prompt` is the cheapest request (1.4 ms). ComfyUI opens the port after it has loaded
    everything, so a refused connection means that it is starting or has ended.
    """
    from http.client import HTTPException

    base, timeout = url(host, port, scheme), timeout or PROBE_TIMEOUT
    try:
        headers, document = _ask(base, "/prompt", timeout, LONGEST_COUNT)
        queue = int(document["exec_info"]["queue_remaining"])
        submitted = int(headers[SUBMITTED]) if SUBMITTED in headers else None
        if not 0 <= queue < 1 << 31:
            raise ValueError("its queue has no length")
    except TimeoutError:
        reason = f"no answer from {base} within {timeout:g} s"
        return ProbeResult(False, reason, answered=False)
    except OSError:
        return ProbeResult(False, f"nothing answers on {base}", refused=True, answered=False)
    except (HTTPException, LookupError, TypeError, ValueError, ArithmeticError,
            RecursionError) as error:  # fmt: skip
        return ProbeResult(False, f"{base} doesn't answer like ComfyUI: {str(error)[:SHOWN]}")
    return ProbeResult(True, queue=queue, submitted=submitted)


def jobs(host: str, port: int, *, scheme: str = "http") -> Jobs | None:
    """The jobs of an instance; None: it doesn't answer like ComfyUI."""
    try:
        queue = ask(host, port, "/queue", scheme=scheme)
        running, waiting = queue["queue_running"], queue["queue_pending"]
        first = sorted(waiting, key=lambda job: job[0])[:MOST_WAITING]
        return Jobs(_ids(running[:MOST_RUNNING]), len(waiting), _ids(first))
    except (LookupError, TypeError, RecursionError):
        return None


def _ids(jobs: list[Any]) -> tuple[str, ...]:
    return tuple(str(job[1])[:SHOWN] for job in jobs)


def last_end(host: str, port: int, *, scheme: str = "http") -> float | None:
    """When the newest job in the history ended, in seconds since the epoch; 0: there is none.

    None: the instance doesn't tell. Source: the messages of its status, which ComfyUI's
    `PromptExecutor.add_message` stamps.
    """
    history = ask(host, port, "/history?max_items=1", scheme=scheme)
    try:
        stamps = [
            float(said["timestamp"]) / 1000
            for entry in history.values()
            for _, said in entry["status"]["messages"]
        ]
        return max(stamps) if stamps else None if history else 0.0
    except (AttributeError, LookupError, TypeError, ValueError):
        return None


def ask(
    host: str, port: int, path: str, timeout: float = PROBE_TIMEOUT, *, scheme: str = "http"
) -> Any:
    """An instance's JSON answer to a GET; None: there is none within `timeout` seconds."""
    from http.client import HTTPException

    try:
        return _ask(url(host, port, scheme), path, timeout, exchange.LONGEST)[1]
    except (OSError, HTTPException, ValueError, RecursionError):
        return None


def _ask(base: str, path: str, timeout: float, longest: int) -> tuple[Message, Any]:
    """The headers, and JSON of at most `longest` bytes, read whole within `timeout` seconds."""
    answer = exchange.request(base, path, timeout, longest)
    if answer.status != OK:
        raise ValueError(f"{answer.status} {answer.reason}")
    return answer.headers, answer.json()


def _refusal(answer: Answer) -> str:
    try:
        document = answer.json()
        # The errors of nodes say more, such as which model is missing.
        for node in (document.get("node_errors") or {}).values():
            for error in node["errors"]:
                text = f"{node['class_type']}: {error['message']}: {error['details']}"
                return text[:LONGEST_REASON].strip(": ")
        error = document["error"]
        return f"{error['message']} {error['details']}"[:LONGEST_REASON].strip()
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return answer.content[:SHOWN].decode(errors="replace")


def _error(entry: dict[str, Any]) -> str:
    with contextlib.suppress(ValueError, TypeError, AttributeError):
        for name, details in entry["status"].get("messages", []):
            if name == "execution_error":
                text = f"{details.get('node_type')}: {details.get('exception_message')}"
                return text[:LONGEST_REASON].strip()
    return "see its log"
