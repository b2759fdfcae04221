"""The judge of an instance: an observation and rules in, conditions out.

Pure: the same observation has the same conditions. Gate, `doit status`, `doit probe`, the health
server and the watcher (through `symptoms`) all ask here, so they say the same in the same words.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from ..pm2.app_state import AppState
from . import node_classes, warmup
from .api import Health as Answer
from .condition import Condition, Reason
from .own_jobs import Trial

STALE = 120.0
"""Seconds; one that answers no question in time is observed once in a minute."""
SHOWN = 3
"""Node classes that a sentence names."""
RUN = "run doit"
WAIT = "wait"
WARMUP = "correct health.warmup, or what it needs, then run doit"


@dataclass(frozen=True)
class Rules:
    """What an instance is held to. Nodes are custom nodes, by name."""

    start_timeout: float
    """Seconds in which it has to answer, and to be warm."""
    restarts: bool = False
    """The watcher restarts one that is unhealthy."""
    required: Collection[str] = ()
    """Nodes that must be loaded."""
    ignored: Collection[str] = ()
    """Nodes that are not to be loaded."""
    classes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Node → the node classes that it had in the build."""
    lists_classes: bool = False
    """It must have listed its node classes."""
    folders: Mapping[str, str] = field(default_factory=dict)
    """The model folders in which it must look → their real paths."""


@dataclass(frozen=True)
class Observation:
    """What was found out about an instance at one moment. What was not looked at is at its default,
    and is no reason for anything."""

    name: str
    state: AppState
    answer: Answer
    """The last answer to a probe; while it is only busy, the one before."""
    age: float = 0.0
    """Seconds since then."""
    awaited: bool = False
    """The run in progress has still to start it."""
    symptom: Condition | None = None
    """What observations that follow each other tell, or the watcher notes."""
    cold: bool = False
    """It has a warm-up job to do before it counts as healthy."""
    warmup: Trial | None = None
    canary: Trial | None = None
    """The last job of each kind."""
    classes: frozenset[str] | None = None
    """The node classes that it lists."""
    failed_nodes: Mapping[str, str] = field(default_factory=dict)
    """Node → what became of it, "doesn't import: …"."""
    folders: Collection[str] | None = None
    """The folders in which it looks for models, as real paths."""
    models: Condition | None = None
    """Of the declared models, as far as this instance needs and lists them."""
    draining: bool = False


def judge(seen: Observation, rules: Rules) -> list[Condition]:
    """All that is not well, the worst first; empty when it is healthy."""
    observed = seen.state.app.fingerprint if seen.state.app else ""
    return [replace(each, observed=observed) for each in _conditions(seen, rules)]


def _conditions(seen: Observation, rules: Rules) -> Iterator[Condition]:
    models, state = seen.models, seen.state
    if seen.age > STALE:
        why = f"it was last observed {seen.age:.0f} s ago"
        yield Condition("Observed", "unknown", Reason.NOT_OBSERVED, why,
                        "see the log of health-server")  # fmt: skip
    if state.app is None:
        if seen.awaited and not state.loops:
            yield Condition("Running", "starting", Reason.AWAITS_RUN,
                            "the run in progress starts it", WAIT)  # fmt: skip
        else:
            yield not_running(state, seen.name)
    elif state.loops and not seen.answer.healthy:
        yield not_running(state, seen.name)
    yield from _functional(seen, rules)
    if models and not models.is_healthy:
        yield models
    if state.app and seen.draining:
        yield Condition("AcceptsJobs", "draining", Reason.DRAINING, "it takes no new jobs",
                        "wait: it is replaced when its jobs are done")  # fmt: skip
    if lost := not_supervised(state):
        yield lost
    for node, (_, what) in _faulty_nodes(seen, rules).items():
        if node not in rules.required:
            yield Condition("Complete", "degraded", Reason.OPTIONAL_NODE_FAILED,
                            f"custom node {node} (optional) {what}",
                            f"doit logs {seen.name}; correct it, or leave it out")  # fmt: skip
    if models and models.is_healthy and models.reason is not Reason.HEALTHY:
        yield models


def process_fault(state: AppState, name: str) -> Condition | None:
    """What is wrong with the process of an app of that name; None: nothing."""
    return not_supervised(state) if state.app else not_running(state, name)


def not_running(state: AppState, name: str) -> Condition:
    """Why an app doesn't run, or not for long."""
    why = str(state.blame) if state.blame else "it ended and wrote no output"
    if state.loops:
        advice = f"doit logs {name}; correct the cause, then run doit"
        return Condition("Running", "crash loop", Reason.CRASH_LOOP, why, advice)
    if not state.is_known and state.was_stopped:
        return Condition("Running", "down", Reason.STOPPED, "stopped", RUN)
    if not state.is_known and state.blame is None:
        return Condition("Running", "down", Reason.NOT_STARTED, "not started", RUN)
    return Condition("Running", "down", Reason.EXITED, why, RUN)


def not_supervised(state: AppState) -> Condition | None:
    """That an app which runs is an orphan; None: it isn't, or it doesn't run."""
    if state.app is None or state.app.supervised:
        return None
    why = "PM2 doesn't hold it: run doit"
    return Condition("Running", "degraded", Reason.NOT_SUPERVISED, why, RUN)


def _functional(seen: Observation, rules: Rules) -> Iterator[Condition]:
    """What is wrong with what it answers and has loaded."""
    name, uptime = seen.name, seen.state.uptime or 0.0
    tell = partial(Condition, "Functional", "unhealthy")
    starts = partial(Condition, "Functional", "starting", advice=WAIT)
    restart = f"doit restart {name}"
    if seen.state.app is None:
        yield Condition("Functional", "down", Reason.NOT_STARTED, f"{name} doesn't run", RUN)
        return
    if seen.symptom:
        advice = f"the watcher restarts it when that lasts; at once: {restart}"
        yield replace(seen.symptom, advice=advice if rules.restarts else restart)
        return
    if not seen.answer.healthy:
        why, advice = seen.answer.reason, f"{restart}; doit logs {name}"
        if not seen.answer.refused:
            reason = Reason.WRONG_ANSWER if seen.answer.answered else Reason.NO_ANSWER
            yield tell(reason, why, advice)
        elif uptime < rules.start_timeout:
            yield starts(Reason.STARTING, why)
        else:
            yield tell(Reason.START_TIMEOUT, why, advice)
        return
    advice = f"doit logs {name}; another ref, python.overrides, or optional: true, then doit"
    for node, (reason, what) in _faulty_nodes(seen, rules).items():
        if node in rules.required:
            yield tell(reason, f"custom node {node} {what}", advice)
    if seen.cold and seen.warmup:
        why = f"its warm-up job failed: {seen.warmup.reason}"
        yield tell(Reason.WARMUP_FAILED, why, WARMUP)
    elif seen.cold and uptime < rules.start_timeout:
        yield starts(Reason.WARMING_UP, warmup.NOT_YET)
    elif seen.cold:
        yield tell(Reason.WARMUP_TIMEOUT, warmup.NOT_YET, WARMUP)
    if rules.lists_classes and seen.classes is None:
        yield starts(Reason.NODES_NOT_LISTED, "it has not listed its node classes yet")
    unused = [path for path, real in rules.folders.items() if real not in (seen.folders or ())]
    if unused and seen.folders is not None:
        why = f"it doesn't look for models in {unused[0]}"
        advice = "see that no argument or custom node changes its model paths"
        yield tell(Reason.MODEL_FOLDER_UNUSED, why, advice)
    if seen.canary and not seen.canary.ok:
        advice = f"doit logs {name}; correct its nodes, its models or the workflow (health.canary)"
        yield tell(Reason.CANARY_FAILED, seen.canary.reason, advice)


def _faulty_nodes(seen: Observation, rules: Rules) -> dict[str, tuple[Reason, str]]:
    """Node → what is wrong with it, those that failed first."""
    failed = sorted(failed_nodes(seen, rules).items())
    found = {node: (Reason.NODE_FAILED, what) for node, what in failed}
    for node, names in sorted(missing_classes(seen, rules).items()):
        what = f"lacks {', '.join(names[:SHOWN])}, which it had in the build"
        found[node] = (Reason.NODE_CLASS_MISSING, what)
    return found


def failed_nodes(seen: Observation, rules: Rules) -> dict[str, str]:
    """Node → what became of it, of those that are to be loaded."""
    return {name: what for name, what in seen.failed_nodes.items() if name not in rules.ignored}


def missing_classes(seen: Observation, rules: Rules) -> dict[str, list[str]]:
    """Node → the node classes that it had in the build and not here, of those that are loaded."""
    if seen.classes is None:
        return {}
    without = {*rules.ignored, *seen.failed_nodes}
    expected = {node: names for node, names in rules.classes.items() if node not in without}
    return node_classes.missing(expected, seen.classes)
