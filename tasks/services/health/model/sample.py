"""What was observed of an instance, with what only the answers tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ....host.comfyui.judge import Observation
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
    """Whether more changed than time and memory."""
    return _telling(before) != _telling(after)


def _telling(sample: Sample) -> tuple[object, ...]:
    seen = sample.seen
    return (
        sample.listed, seen.state.app and seen.state.app.pid, seen.answer, seen.draining, seen.cold,
        seen.failed_nodes, seen.classes, seen.warmup, seen.canary,
        seen.symptom and seen.symptom.reason,
    )  # fmt: skip
