"""The one client of ComfyUI's HTTP API, and the one probe."""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..system.failure import Failure

if TYPE_CHECKING:
    import http.client

    import requests

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
LONGEST = 16 << 20
"""Bytes of an answer; with 2,000 nodes and as many models `/object_info` has about ten million."""
MOST_VALUES = 1_000_000
"""Values in a JSON answer, roughly: one takes 60 bytes of memory, and as few as three as text."""
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


class Client:
    """A client of one instance. Methods raise requests.RequestException when it doesn't answer."""

    def __init__(
        self, host: str, port: int, timeout: float = 10.0, *, scheme: str = "http"
    ) -> None:
        import requests
        import urllib3

        # An instance listens on this machine, so no proxy of the environment must be used.
        self._session = requests.Session()
        self._session.trust_env = False
        if scheme == "https":
            # See _wrap_tls.
            self._session.verify = False
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        self._timeout = timeout
        self.url = url(host, port, scheme)

    def get(self, path: str, **parameters: Any) -> Any:
        answer = self._session.get(f"{self.url}{path}", params=parameters, timeout=self._timeout)
        answer.raise_for_status()
        return answer.json()

    def submit(self, prompt: dict[str, Any], *, client: str = "", front: bool = False) -> str:
        """Queue a prompt and return its id; with `front` it is put before all waiting ones.

        `client` is its client id. Raises Failure with ComfyUI's reason if it is refused.
        """
        job = {"prompt": prompt, "front": front} | ({"client_id": client} if client else {})
        answer = self._session.post(f"{self.url}/prompt", json=job, timeout=self._timeout)
        if answer.status_code == 400:
            raise Failure(f"{self.url} refused the job: {_refusal(answer)}")
        answer.raise_for_status()
        return str(answer.json()["prompt_id"])

    def delete(self, prompt_id: str) -> None:
        """Remove a waiting prompt from the queue; a running one continues."""
        answer = self._session.post(
            f"{self.url}/queue", json={"delete": [prompt_id]}, timeout=self._timeout
        )
        answer.raise_for_status()

    def done(self, prompt_id: str) -> dict[str, Any] | None:
        """The history entry of a prompt; None: it isn't finished. Raises Failure when it ended in
        an error."""
        entry: dict[str, Any] = self.get(f"/history/{prompt_id}").get(prompt_id, {})
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
    everything, so a refused connection means that it is starting or has ended. This doesn't use
    requests, whose import takes longer than the rest of `doit status`.
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
        return _ask(url(host, port, scheme), path, timeout, LONGEST)[1]
    except (OSError, HTTPException, ValueError, RecursionError):
        return None


def _ask(base: str, path: str, timeout: float, longest: int) -> tuple[http.client.HTTPMessage, Any]:
    """The headers, and JSON of at most `longest` bytes, read within `timeout` seconds."""
    import http.client
    import json

    scheme, _, address = base.partition("://")
    connection = http.client.HTTPConnection(address)
    try:
        connection.sock = _connect(connection.host, connection.port, timeout)
        if scheme == "https":
            connection.sock = _wrap_tls(connection.sock)
        connection.request("GET", path)
        answer = connection.getresponse()
        if answer.status != http.client.OK:
            raise ValueError(f"{answer.status} {answer.reason}")
        content = answer.read(longest + 1)
        if len(content) > longest:
            raise ValueError(f"its answer is longer than {longest} bytes")
        if sum(map(content.count, (b",", b"[", b"{"))) > MOST_VALUES:
            raise ValueError(f"its answer has more than {MOST_VALUES} values")
        return answer.headers, json.loads(content)
    finally:
        connection.close()


class _DeadlineSocket(socket.socket):
    """Reads until a deadline: a socket's own time-out restarts with every byte."""

    deadline = float("inf")

    def recv_into(self, *arguments: Any, **options: Any) -> int:
        self.settimeout(_seconds_until(self.deadline))
        return super().recv_into(*arguments, **options)


def _seconds_until(deadline: float) -> float:
    """Raises TimeoutError after the deadline."""
    if (left := deadline - time.monotonic()) <= 0:
        raise TimeoutError
    return left


def _connect(host: str, port: int, timeout: float) -> _DeadlineSocket:
    deadline = time.monotonic() + timeout
    connected = socket.create_connection((host, port), timeout)
    result = _DeadlineSocket(fileno=connected.detach())
    result.deadline = deadline
    result.settimeout(timeout)
    return result


def _wrap_tls(plain: _DeadlineSocket) -> socket.socket:
    """TLS over this socket; the certificate isn't checked. Raises ValueError without TLS.

    The kernel identifies our processes on this machine, as with http. The certificate is for other
    clients: it names another host, and may be renewed or expire while jobs run. A restart for that
    would lose them.
    """
    import ssl

    deadline = plain.deadline

    class DeadlineSSLSocket(ssl.SSLSocket):
        def recv_into(self, *arguments: Any, **options: Any) -> int:
            self.settimeout(_seconds_until(deadline))
            return super().recv_into(*arguments, **options)

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.sslsocket_class = DeadlineSSLSocket
    try:
        return context.wrap_socket(plain)
    except ssl.SSLError as error:
        raise ValueError(f"it doesn't speak TLS ({error.reason or error})") from None


def _refusal(answer: requests.Response) -> str:
    try:
        document = answer.json()
        # The errors of nodes say more, such as which model is missing.
        for node in (document.get("node_errors") or {}).values():
            for error in node["errors"]:
                return f"{node['class_type']}: {error['message']}: {error['details']}".strip(": ")
        return f"{document['error']['message']} {document['error']['details']}".strip()
    except (ValueError, LookupError, TypeError, AttributeError):
        return answer.text[:200]


def _error(entry: dict[str, Any]) -> str:
    for name, details in entry.get("status", {}).get("messages", []):
        if name == "execution_error":
            return f"{details.get('node_type')}: {str(details.get('exception_message')).strip()}"
    return "see its log"
