"""doit probe: exit 0 when the machine is healthy, for Docker's HEALTHCHECK and Kubernetes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from doit.exceptions import InvalidCommand

from ..engine.run import Run
from ..host.comfyui import health_client
from ..server import client
from ..spec import Instance
from ..spec.problems import shown
from .shared import health_report
from .shared.command import Call, MachineCommand, flag

PAUSE = 0.5
"""Seconds between two looks of `--wait`."""
PATHS = {"live": "/livez", "ready": "/readyz", "healthy": "/health/comfyui"}
"""What is asked for, and where the health server answers it."""
ASKS_DOIT = "run doit status"


@dataclass(frozen=True)
class Verdict:
    """The answer, and the line that says why."""

    ok: bool
    line: str


class Probe(MachineCommand):
    doc_purpose = "exit 0 when the machine is healthy, else 1 and one line that says why"
    doc_usage = "[INSTANCE ...]"
    doc_description = (
        "For Docker's HEALTHCHECK and exec probes of Kubernetes. With names it is about these "
        "instances alone. It asks the health server, and looks by itself where none answers. "
        "Exit code 3: machine.yaml can't be understood, or there is no such instance."
    )
    takes_names = True
    cmd_options = (
        flag("live", "only whether the machine is kept alive: PM2 runs, or a run of doit is on"),
        flag("ready", "only whether at least one instance is healthy"),
        {
            "name": "wait",
            "long": "wait",
            "type": int,
            "default": 0,
            "help": "seconds to wait for it",
        },
    )

    def perform(self, call: Call) -> int:
        run, options = call.run, call.options
        what = "live" if options["live"] else "ready" if options["ready"] else "healthy"
        if options["live"] and (options["ready"] or call.names):
            raise InvalidCommand("--live is about the whole machine: leave --ready and names out")
        chosen = call.named()
        deadline = time.monotonic() + options["wait"]
        while True:
            left = max(0.0, deadline - time.monotonic())
            told = _ask(run, what, chosen, left) or _look(run, what, run.instances, chosen)
            left = deadline - time.monotonic()
            if told.ok or left <= 0:
                print(shown(told.line, 1000))
                return 0 if told.ok else 1
            time.sleep(min(PAUSE, left))


def _ask(run: Run, what: str, chosen: Sequence[Instance], wait: float) -> Verdict | None:
    """What the health server says; None when it says nothing."""
    if not run.machine.health.server:
        return None
    paths = [f"{PATHS['healthy']}/instances/{each.gpu}" for each in chosen] or [PATHS[what]]
    deadline = time.monotonic() + wait
    told = None
    for path in paths:
        left = max(0, round(deadline - time.monotonic()))
        answer = health_client.ask(
            client(run),
            f"{path}?wait={left}" if left else path,
            health_client.PATIENCE + left,
        )
        # Any other code says something of the question: a token that it doesn't take.
        if answer is None or answer[0] not in (200, 503):
            return None
        told = _told(answer[0], answer[1])
        if not told.ok:
            break
    return told


def _told(code: int, body: dict[str, Any]) -> Verdict:
    said = [str(body[key]) for key in ("status", "reason", "advice") if body.get(key)]
    return Verdict(code == 200, ": ".join([*said[:1], "; ".join(said[1:])]).removesuffix(": "))


def _look(
    run: Run, what: str, instances: Sequence[Instance], chosen: Sequence[Instance]
) -> Verdict:
    """The same by ourselves."""
    if what == "live":
        return _is_live(run)
    found = health_report.take(run, instances)
    names = {each.name for each in chosen}
    rows = [row for row in found.instances if not names or row.instance in names]
    wrong = [health_report.said_of(row) for row in rows if row.health != "healthy"]
    if not rows:
        ok, said = not run.machine.enabled, [health_report.why_none(run)]
    elif what == "ready" and not chosen:
        ok, said = len(wrong) < len(rows), wrong
    elif chosen:
        ok, said = not wrong, wrong
    else:
        said = health_report.faults(run, found)
        ok = not said
    if ok:
        return Verdict(True, what)
    advice = f"a run is on (pid {found.run.pid}), wait for it" if found.run else ASKS_DOIT
    return Verdict(False, f"{'; '.join(said)}; {advice}")


def _is_live(run: Run) -> Verdict:
    from ..host.pm2 import pm2
    from ..host.system.run_lock import RunLock

    if pm2.daemon(run.layout) is not None:
        return Verdict(True, "live: PM2 runs")
    if other := RunLock(run.machine.workspace).run():
        return Verdict(True, f"live: a run is on (pid {other.pid})")
    return Verdict(False, "PM2 doesn't run, and no run is on; run doit")
