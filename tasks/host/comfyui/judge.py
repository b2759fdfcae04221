"""The judge of an instance: an observation and rules in, conditions out.

Pure: the same observation gives the same conditions. Gate, `doit status`, `doit probe`, the health
server and the watcher (through `symptoms`) all use this module, so their answers agree.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from ..pm2.app_state import AppState
from ..pm2.endings import Cause
from ..system.program_files import PROGRAM
from . import node_classes, warmup, workflow_state
from .api import ProbeResult
from .condition import Condition, Reason
from .own_jobs import Trial
from .workflow_state import WorkflowState

STALE = 120.0
"""Seconds; an instance that doesn't answer in time is observed once a minute."""
SHOWN = 3
"""Node classes that a sentence names."""
RUN = f"run {PROGRAM}"
REASONS: Mapping[Cause, Reason] = {
    "stopped": "Stopped", "out of memory": "OutOfMemory", "killed": "Killed", "exited": "Exited",
    "unknown": "Exited",
}  # fmt: skip
"""Of a process that ended, by what ended it."""
WAIT = "wait"
WARMUP = f"correct health.warmup, or what it needs, then run {PROGRAM}"


@dataclass(frozen=True)
class Rules:
    """What an instance is judged by. Nodes are custom nodes, by name."""

    start_timeout: float
    """Seconds in which it must answer and be warm."""
    restarts: bool = False
    """Whether the watcher restarts an unhealthy instance."""
    required: Collection[str] = ()
    """Nodes that must be loaded."""
    ignored: Collection[str] = ()
    """Nodes that it need not load."""
    classes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Node → the node classes that it had in the build."""
    lists_classes: bool = False
    """Whether it must have listed its node classes."""
    folders: Mapping[str, str] = field(default_factory=dict)
    """Model folders that it must use → their real paths."""


@dataclass(frozen=True)
class Observation:
    """An instance at one moment. What was not observed has its default and is ignored."""

    name: str
    state: AppState
    answer: ProbeResult
    """The last answer to a probe; while it is only busy, the previous answer."""
    age: float = 0.0
    """Seconds since then."""
    awaited: bool = False
    """Whether the run in progress still has to start it."""
    symptom: Condition | None = None
    """What successive observations show, or the watcher recorded."""
    cold: bool = False
    """Whether its warm-up job must succeed before it counts as healthy."""
    warmup: Trial | None = None
    canary: Trial | None = None
    """The last job of each kind."""
    classes: frozenset[str] | None = None
    """The node classes that it lists."""
    failed_nodes: Mapping[str, str] = field(default_factory=dict)
    """Node → its result, "doesn't import: …"."""
    folders: Collection[str] | None = None
    """The model folders that it uses, as real paths."""
    unlisted: Sequence[str] = ()
    """Models that are there and that it doesn't list."""
    workflows: Sequence[WorkflowState] = ()
    """What it lacks of each workflow of machine.yaml."""
    draining: bool = False


def judge(observation: Observation, rules: Rules) -> list[Condition]:
    """All conditions that aren't healthy, the worst first; empty when it is healthy."""
    observed = observation.state.app.fingerprint if observation.state.app else ""
    return [replace(each, observed=observed) for each in _conditions(observation, rules)]


def _conditions(observation: Observation, rules: Rules) -> Iterator[Condition]:
    name, state, nodes = observation.name, observation.state, _faulty_nodes(observation, rules)
    if observation.age > STALE:
        why = f"it was last observed {observation.age:.0f} s ago"
        yield Condition("Observed", "unknown", "NotObserved", why, "see the log of health-server")
    if state.app is None and observation.awaited and not state.loops:
        why = "the run in progress starts it"
        yield Condition("Running", "starting", "AwaitsRun", why, WAIT)
    elif state.app is None or (state.loops and not observation.answer.healthy):
        yield not_running(state, name)
    if state.app is None:
        yield Condition("Functional", "down", "NotStarted", f"{name} doesn't run", RUN)
    elif problem := _answer_problem(observation, rules):
        yield problem
    else:
        remedies = "another ref, python.overrides, or optional: true"
        advice = f"{PROGRAM} logs {name}; {remedies}, then {PROGRAM}"
        for node, (reason, what) in nodes.items():
            if node in rules.required:
                why = f"custom node {node} {what}"
                yield Condition("Functional", "unhealthy", reason, why, advice)
        yield from _functional(observation, rules)
    if state.app and observation.draining:
        advice = "wait: it is replaced when its jobs are done"
        yield Condition("AcceptsJobs", "draining", "Draining", "it takes no new jobs", advice)
    if orphan := not_supervised(state):
        yield orphan
    for node, (_, what) in nodes.items():
        if node not in rules.required:
            why, advice = (
                f"custom node {node} (optional) {what}",
                f"{PROGRAM} logs {name}; correct it",
            )
            yield Condition("Complete", "degraded", "OptionalNodeFailed", why, advice)
    if state.app and observation.canary and observation.canary.refused:
        why = observation.canary.reason
        advice = "correct health.canary, or bring what it needs; other jobs are taken"
        yield Condition("Complete", "degraded", "CanaryRefused", why, advice)
    if state.app and observation.unlisted:
        more = (
            f", nor {len(observation.unlisted) - 1} more" if len(observation.unlisted) > 1 else ""
        )
        why = f"it doesn't list {observation.unlisted[0]}{more}"
        advice = f"see that no custom node changes its model paths; {PROGRAM} restart {name}"
        yield Condition("ModelsPresent", "degraded", "ModelNotListed", why, advice)
    if state.app:
        yield from map(_workflow, workflow_state.wrong(observation.workflows))


def _workflow(lacks: WorkflowState) -> Condition:
    mark = " (optional)" if lacks.optional else ""
    reason: Reason = "WorkflowClassMissing" if lacks.classes else "WorkflowModelMissing"
    what = "the custom node, or the ComfyUI, that has it" if lacks.classes else "the model"
    advice = f"bring {what}, then run {PROGRAM}"
    why = f"workflow {lacks.name}{mark}: {lacks.reason}"
    return Condition("WorkflowsReady", "degraded", reason, why, advice)


def process_fault(state: AppState, name: str) -> Condition | None:
    """What is wrong with an app's process; None: nothing."""
    if state.app is None:
        return not_running(state, name)
    if state.app.supervised and state.probe_fault:
        why = f"it fails its probe: {state.probe_fault}"
        advice = f"{PROGRAM} logs {name}; the watcher restarts it when that lasts"
        return Condition("Functional", "degraded", "ProbeFailed", why, advice)
    return not_supervised(state)


def not_running(state: AppState, name: str) -> Condition:
    """Why an app doesn't run, or not for long."""
    why = str(state.ending) if state.ending else "it ended, and how is not known"
    if state.loops:
        advice = f"{PROGRAM} logs {name}; correct the cause, then run {PROGRAM}"
        return Condition("Running", "crash loop", "CrashLoop", why, advice)
    if not state.is_known and state.was_stopped:
        by = state.ending if state.ending and state.ending.cause == "stopped" else "stopped"
        return Condition("Running", "down", "Stopped", str(by), RUN)
    if state.ending is None and not state.is_known:
        return Condition("Running", "down", "NotStarted", "not started", RUN)
    reason = REASONS[state.ending.cause] if state.ending else "Exited"
    return Condition("Running", "down", reason, why, RUN)


def not_supervised(state: AppState) -> Condition | None:
    """Reports a running app that PM2 doesn't supervise; None for any other."""
    if state.app is None or state.app.supervised:
        return None
    why = f"PM2 doesn't supervise it: run {PROGRAM}"
    return Condition("Running", "degraded", "NotSupervised", why, RUN)


def _answer_problem(observation: Observation, rules: Rules) -> Condition | None:
    """Why it gives no good answer, or doesn't work on its jobs; None: it does."""
    name, answer = observation.name, observation.answer
    restart = f"{PROGRAM} restart {name}"
    if observation.symptom:
        watched = f"the watcher restarts it when that lasts; at once: {restart}"
        return replace(observation.symptom, advice=watched if rules.restarts else restart)
    if answer.healthy:
        return None
    if answer.refused and (observation.state.uptime or 0.0) < rules.start_timeout:
        return Condition("Functional", "starting", "Starting", answer.reason, WAIT)
    reason: Reason = "WrongAnswer" if answer.answered else "NoAnswer"
    reason = "StartTimeout" if answer.refused else reason
    advice = f"{restart}; {PROGRAM} logs {name}"
    return Condition("Functional", "unhealthy", reason, answer.reason, advice)


def _functional(observation: Observation, rules: Rules) -> Iterator[Condition]:
    """What is wrong with an instance that answers, apart from its nodes."""
    starting = partial(Condition, "Functional", "starting", advice=WAIT)
    unhealthy = partial(Condition, "Functional", "unhealthy")
    if observation.cold and observation.warmup:
        yield unhealthy(
            "WarmupFailed", f"its warm-up job failed: {observation.warmup.reason}", WARMUP
        )
    elif observation.cold and (observation.state.uptime or 0.0) < rules.start_timeout:
        yield starting("WarmingUp", warmup.NOT_YET)
    elif observation.cold:
        yield unhealthy("WarmupTimeout", warmup.NOT_YET, WARMUP)
    if rules.lists_classes and observation.classes is None:
        yield starting("NodesNotListed", "it has not listed its node classes yet")
    unused = [
        path for path, real in rules.folders.items() if real not in (observation.folders or ())
    ]
    if unused and observation.folders is not None:
        why = f"it doesn't look for models in {unused[0]}"
        advice = "see that no argument or custom node changes its model paths"
        yield unhealthy("ModelFolderUnused", why, advice)
    if observation.canary and not observation.canary.ok and not observation.canary.refused:
        advice = (
            f"{PROGRAM} logs {observation.name}; "
            "correct its nodes, models or workflow (health.canary)"
        )
        yield unhealthy("CanaryFailed", observation.canary.reason, advice)


def _faulty_nodes(observation: Observation, rules: Rules) -> dict[str, tuple[Reason, str]]:
    """Node → what is wrong with it; failed nodes come first."""
    found: dict[str, tuple[Reason, str]] = {}
    for node, what in sorted(failed_nodes(observation, rules).items()):
        found[node] = ("NodeFailed", what)
    for node, names in sorted(missing_classes(observation, rules).items()):
        what = f"lacks {', '.join(names[:SHOWN])}, which it had in the build"
        found[node] = ("NodeClassMissing", what)
    return found


def failed_nodes(observation: Observation, rules: Rules) -> dict[str, str]:
    """Node → why it failed, without ignored nodes."""
    return {
        name: what for name, what in observation.failed_nodes.items() if name not in rules.ignored
    }


def missing_classes(observation: Observation, rules: Rules) -> dict[str, list[str]]:
    """Node → the node classes that it had in the build and lacks here, for loaded nodes."""
    if observation.classes is None:
        return {}
    without = {*rules.ignored, *observation.failed_nodes}
    expected = {node: names for node, names in rules.classes.items() if node not in without}
    return node_classes.missing(expected, observation.classes)
