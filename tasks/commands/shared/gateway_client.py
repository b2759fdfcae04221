"""A client of this machine's gateway, for commands. Source: the Comfy API v2, as we serve it."""

from __future__ import annotations

from collections.abc import Iterator
from http.client import HTTPException
from typing import Any

from ... import ports
from ...engine.run import Run
from ...host.comfyui import api, exchange
from ...host.system.failure import Failure
from ...host.system.program_files import PROGRAM
from ...variables import expand_or_fail

PATH = "/api/v2/jobs"
TIMEOUT = 30.0
"""Seconds."""
LONGEST = 64 << 20
"""Bytes of an answer."""
PAGE = 100
"""Jobs in one answer."""
ENDED = frozenset(["succeeded", "failed", "canceled", "expired"])
"""What a job's status stays."""
Job = dict[str, Any]


class GatewayClient:
    """Methods raise Failure with the gateway's reason, or when it doesn't answer."""

    def __init__(self, run: Run) -> None:
        jobs = run.machine.wanted_jobs
        if jobs is None:
            raise Failure(
                f"jobs are off: write `jobs: true` in {run.machine.file} and run {PROGRAM}"
            )
        self._url = api.url(jobs.listen, ports.gateway_port(run, jobs))
        self._headers: dict[str, str | bytes] = {}
        if jobs.token:
            token = expand_or_fail(run, jobs.token, "jobs.token")
            self._headers["Authorization"] = f"Bearer {token}".encode()

    def submit(self, workflow: dict[str, Any], priority: int, webhook: str = "") -> Job:
        """`webhook` is the URL that is told of its end; empty: none is."""
        wanted = {"workflow": workflow, "priority": priority}
        return self._ask("", wanted | ({"webhook_url": webhook} if webhook else {}))

    def job(self, job: str) -> Job:
        return self._ask(f"/{job}")

    def cancel(self, job: str) -> Job:
        return self._ask(f"/{job}/cancel", {})

    def retry(self, job: str) -> Job:
        return self._ask(f"/{job}/retry", {})

    def jobs(self, statuses: str = "") -> Iterator[Job]:
        """All jobs of these statuses, separated by commas, the newest first; empty: of any."""
        cursor = ""
        while True:
            query = f"?limit={PAGE}&status={statuses}" + (f"&cursor={cursor}" if cursor else "")
            page = self._ask(query)
            yield from page["jobs"]
            cursor = page.get("next_cursor", "")
            if not cursor:
                return

    def named(self, name: str) -> str:
        """The whole id of a job of which only the beginning is given."""
        if len(name) == LONGEST_ID:
            return name
        found = [each["id"] for each in self.jobs() if each["id"].startswith(name)]
        if len(found) != 1:
            raise Failure(f"{'no job' if not found else f'{len(found)} jobs'} {name}…")
        return str(found[0])

    def _ask(self, path: str, body: Any = None) -> Job:
        """A GET, or with `body` a POST."""
        try:
            answer = exchange.request(
                self._url, f"{PATH}{path}", TIMEOUT, LONGEST, body=body, headers=self._headers
            )
            document = answer.json()
        except OSError as error:
            what = f"the gateway doesn't answer at {self._url} ({type(error).__name__})"
            raise Failure(f"{what}: run {PROGRAM}") from None
        except (HTTPException, ValueError, RecursionError):
            raise Failure(f"what answers at {self._url} isn't the gateway") from None
        if answer.status < 300 and isinstance(document, dict):
            return document
        raise Failure(_reason(document, answer.status))


LONGEST_ID = 36
"""Characters of a whole id."""


def _reason(document: Any, status: int) -> str:
    try:
        return str(document["error"]["message"])
    except (LookupError, TypeError):
        return f"the gateway answered {status}"
