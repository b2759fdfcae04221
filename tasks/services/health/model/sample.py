"""What was observed of an instance, with what only the answers tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ....host.comfyui.judge import Observation
from ....host.pm2.app_state import AppState
from .answers import Job, Point


@dataclass(frozen=True)
class Sample:
    """One moment; `at` and `silent` are of the monotonic clock."""

    at: float
    seen: Observation
    silent: float | None = None
    """Since when it has not answered."""
    before: str = ""
    """When and why the process before it ended."""
    job: Job | None = None
    listed: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Models by type, of the types that it lists."""
    history: tuple[Point, ...] = ()


def differs(before: Sample, after: Sample) -> bool:
    """Whether more changed than time, memory and the step of a job."""
    return _without_measures(before) != _without_measures(after)


def _without_measures(sample: Sample) -> Sample:
    seen = replace(sample.seen, state=AppState(sample.seen.state.app))
    return replace(sample, at=0.0, seen=seen, silent=None, job=None, history=())
