"""doit probe: exit 0 while the machine serves, for Docker's HEALTHCHECK and Kubernetes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from doit.exceptions import InvalidCommand

from ..engine.exit_codes import ExitCode
from ..engine.run import Run
from ..host.comfyui import health_client
from ..host.system.program_files import PROGRAM
from ..server import client
from ..spec import Instance
from ..spec.problems import shown
from .shared import health_report
from .shared.command import Call, MachineCommand, instance_words, json_option, option

if TYPE_CHECKING:
    from .shared.documents import Asked

PAUSE = 0.5
"""Seconds between two questions of `--wait`."""
PATHS = {"live": "/livez", "ready": "/readyz", "healthy": "/health/comfyui"}
"""What is asked for, and where the health server answers it."""


@dataclass(frozen=True)
class Outcome:
    """Whether it is as asked for, and the line that says why."""

    ok: bool
    line: str


class Probe(MachineCommand):
    doc_purpose = "exit 0 while the machine serves, else 1; say why"
    doc_usage = "[INSTANCE ...]"
    doc_description = (
        "For Docker's HEALTHCHECK and exec probes of Kubernetes. With names it is about these "
        "instances alone. It asks the health server, and checks by itself where none answers. "
        "Exit code 3: machine.yaml can't be understood, or there is no such instance."
    )
    takes_names = True
    has_json = True
    cmd_options = (
        json_option(),
        option(
            "live", f"only whether the machine is kept alive: PM2 runs, or a {PROGRAM} run does"
        ),
        option("ready", "only whether at least one instance is healthy"),
        option("wait", "seconds to wait for it", 0),
    )

    @classmethod
    def words(cls, run: Run) -> Iterator[tuple[str, str]]:
        yield from instance_words(run)

    def perform(self, call: Call) -> int:
        run, options = call.run, call.options
        what: Asked = "live" if options["live"] else "ready" if options["ready"] else "healthy"
        if options["live"] and (options["ready"] or call.names):
            raise InvalidCommand("--live is about the whole machine: leave --ready and names out")
        chosen = call.named()
        with run.working("probe", f"waits until it is {what}"):
            outcome = _wait(run, what, chosen, options["wait"])
        line = shown(outcome.line, 1000)
        if options["json"]:
            from .shared import documents

            self.document = documents.probe(outcome.ok, what, chosen, line)
        print(line)
        return ExitCode.OK if outcome.ok else ExitCode.FAILED


def _wait(run: Run, what: Asked, chosen: Sequence[Instance], seconds: float) -> Outcome:
    """The outcome, once it is as asked for or after these seconds."""
    deadline = time.monotonic() + seconds
    while True:
        left = max(0.0, deadline - time.monotonic())
        outcome = _ask(run, what, chosen, left) or _observe(run, what, chosen)
        left = deadline - time.monotonic()
        if outcome.ok or left <= 0:
            return outcome
        run.doing(f"waits until it is {what}: {outcome.line}")
        time.sleep(min(PAUSE, left))


def _ask(run: Run, what: str, chosen: Sequence[Instance], wait: float) -> Outcome | None:
    """What the health server says; None when it says nothing."""
    if not run.machine.health.server:
        return None
    paths = [f"{PATHS['healthy']}/instances/{each.gpu}" for each in chosen] or [PATHS[what]]
    deadline = time.monotonic() + wait
    outcome = None
    for path in paths:
        left = max(0, round(deadline - time.monotonic()))
        answer = health_client.ask(
            client(run),
            f"{path}?wait={left}" if left else path,
            health_client.ANSWER_TIMEOUT + left,
        )
        # Any other code is about the question: a token that the server doesn't take.
        if answer is None or answer[0] not in (200, 503):
            return None
        outcome = Outcome(answer[0] == 200, _line(answer[1]))
        if not outcome.ok:
            break
    return outcome


def _line(body: dict[str, Any]) -> str:
    why = "; ".join(str(body[key]) for key in ("reason", "advice") if body.get(key))
    return f"{body['status']}: {why}" if why else str(body["status"])


def _observe(run: Run, what: str, chosen: Sequence[Instance]) -> Outcome:
    """The same by ourselves."""
    if what == "live":
        return _observe_life(run)
    report = health_report.read(run, run.instances)
    by_name = {each.instance: each.ready for each in report.found.instances}
    asked = [by_name[each.name] for each in chosen]
    asked = asked or [report.available if what == "ready" else report.ready]
    worst = next((each for each in asked if not each.is_healthy), asked[-1])
    return Outcome(worst.is_healthy, worst.told())


def _observe_life(run: Run) -> Outcome:
    from ..host.pm2 import pm2
    from ..host.system.run_lock import RunLock

    if pm2.daemon(run.layout) is not None:
        return Outcome(True, "live: PM2 runs")
    if other := RunLock(run.machine.workspace).run():
        return Outcome(True, f"live: a {PROGRAM} run is in progress (pid {other.pid})")
    return Outcome(False, f"PM2 doesn't run, and no {PROGRAM} run is in progress; run {PROGRAM}")
