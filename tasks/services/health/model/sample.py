"""What was seen of an instance, at one moment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ....host.comfyui import machine_state
from ....host.comfyui.api import Health
from .answers import Job, Point, Trial


@dataclass(frozen=True)
class Sample:
    """All of it; `at` and `silent` are of the monotonic clock."""

    at: float
    seen: machine_state.Seen
    health: Health
    """The last answer; while it is only busy, the one before."""
    silent: float | None = None
    """Since when it has not answered."""
    trouble: str = ""
    """What its looks tell together: it hangs, or nothing works on its jobs."""
    watched: str = ""
    """What the watcher finds wrong with it."""
    before: str = ""
    """When and why the process before it ended."""
    draining: bool = False
    cold: tuple[str, str] | None = None
    """Its health by its warm-up job, and why; None: it is warm, or needs none."""
    job: Job | None = None
    classes: frozenset[str] | None = None
    """Node classes that it has; None: it has not said."""
    failed_nodes: Mapping[str, str] = field(default_factory=dict)
    listed: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """What it lists of each type of models that it has and tells of."""
    warmup: Trial | None = None
    canary: Trial | None = None
    history: tuple[Point, ...] = ()


def differs(before: Sample, after: Sample) -> bool:
    """Whether more changed than time and memory."""
    return any(
        getattr(before, name) != getattr(after, name)
        for name in ("health", "draining", "cold", "watched", "failed_nodes", "classes",
                     "listed", "warmup", "canary")
    ) or bool(before.trouble) != bool(after.trouble) or _pid(before) != _pid(after)  # fmt: skip


def _pid(sample: Sample) -> int | None:
    return sample.seen.app.pid if sample.seen.app else None
