"""What is wrong with the programs of jobs: told alike by the health server and the commands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..pm2 import apps
from ..pm2.app_state import AppState
from . import judge

TASKS: Mapping[str, str] = {
    apps.JOBS_SERVER: "jobs:server",
    apps.SCHEDULER: "jobs:scheduler",
    apps.GATEWAY: "jobs:gateway",
}
"""Program of jobs → the task that starts it."""


@dataclass(frozen=True)
class JobApp:
    """One of these programs."""

    name: str
    state: AppState
    fault: str = ""
    """What is wrong with it, in one sentence; empty: nothing."""


def look(states: Mapping[str, AppState], silent: int | None) -> Sequence[JobApp]:
    """Judge these programs. `silent`: the port at which our NATS server doesn't answer; None: it
    does, or isn't among them. Pure."""
    return [JobApp(name, state, _fault(name, state, silent)) for name, state in states.items()]


def _fault(name: str, state: AppState, silent: int | None) -> str:
    wrong = judge.process_fault(state, name)
    if state.app is None:
        return f"{name} doesn't run: {wrong.message if wrong else 'not started'}"
    if wrong:
        return f"{name}: {wrong.message}"
    if name == apps.JOBS_SERVER and silent is not None:
        return f"{name} (pid {state.app.pid}) doesn't answer at port {silent}"
    return ""
