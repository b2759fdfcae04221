"""What was observed of the machine as a whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ....host.comfyui.judge import Observation
from ....host.downloads.model_files import ModelState
from ....host.pm2.app_state import AppState
from .answers import Card, Job, Layer, Packages, Part, Point, Run
from .settings import Settings

SILENT = "the disk has not answered yet"


@dataclass(frozen=True)
class Installed:
    """ComfyUI, nodes and packages as they are on disk."""

    layer: Layer
    packages: Packages = field(default_factory=lambda: Packages(ok=False))
    generation: str | None = None
    comfyui: Part | None = None
    nodes: Sequence[Part] = ()
    degraded: Sequence[str] = ()
    """What is wrong without making the machine unhealthy."""
    classes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Custom node → the node classes that it had in the build."""


@dataclass(frozen=True)
class Facts:
    """Everything that was observed of the machine."""

    settings: Settings
    installed: Installed
    models: Mapping[str, ModelState] | None = None
    """By target; None: the disk has not answered yet."""
    run: Run | None = None
    behind: str = ""
    """Why the machine stays on the last good generation."""
    cards: Mapping[int, Card] = field(default_factory=dict)
    workers: Mapping[str, AppState] = field(default_factory=dict)
    watcher: str | None = None
    """What is wrong with the watcher; None: nothing."""

    @property
    def installs(self) -> bool:
        """Whether a run is in progress."""
        return self.run is not None and self.run.state == "running"

    def awaits(self, name: str) -> bool:
        """Whether the run in progress still has this task to do; `doit build` starts nothing."""
        tasks = self.run.tasks if self.run and self.installs else []
        return any(each.name == name and each.state in ("waiting", "running") for each in tasks)


@dataclass(frozen=True)
class Sample:
    """One sample of an instance; `at` and `silent` are by the monotonic clock."""

    at: float
    seen: Observation
    silent: float | None = None
    """Since when it hasn't answered."""
    before: str = ""
    """When and why the previous process ended."""
    job: Job | None = None
    listed: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Model folder → the models that it lists."""
    history: tuple[Point, ...] = ()


def differs(previous: Sample, current: Sample) -> bool:
    """Whether anything changed except time, memory and the progress of a job."""
    return _without_measurements(previous) != _without_measurements(current)


def _without_measurements(sample: Sample) -> Sample:
    seen = replace(sample.seen, state=AppState(sample.seen.state.app))
    return replace(sample, at=0.0, seen=seen, silent=None, job=None, history=())
