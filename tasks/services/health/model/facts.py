"""What was observed of the machine as a whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ....host.comfyui.job_apps import JobApp
from ....host.comfyui.judge import Observation
from ....host.downloads.model_files import ModelState
from ....host.pm2.app_state import AppState
from ....host.system.run_journal import Journal
from .answers import Card, Job, JobQueue, Layer, Packages, Part, Point
from .settings import Settings


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


@dataclass(frozen=True)
class Facts:
    """Everything that was observed of the machine."""

    settings: Settings
    installed: Installed
    models: Mapping[str, ModelState] | None = None
    """By target; None: the disk has not answered yet."""
    run: Journal | None = None
    behind: str = ""
    """Why the machine stays on the last good generation."""
    cards: Mapping[int, Card] = field(default_factory=dict)
    workers: Mapping[str, AppState] = field(default_factory=dict)
    jobs: Sequence[JobApp] = ()
    queue: JobQueue | None = None
    """None: jobs are off."""
    watcher: str | None = None
    """What is wrong with the watcher; None: nothing."""
    full: Sequence[str] = ()
    """Disks without space left."""
    observed: str = ""
    """The digest of the settings and the lock."""
    at: float = 0.0
    """When the oldest sample of what runs change began, by the monotonic clock."""

    def awaits(self, name: str) -> bool:
        """Whether the run in progress still has this task to do."""
        return self.run is not None and self.run.awaits(name)


@dataclass(frozen=True)
class Build:
    """The build of the generation that an instance was started on, and what it was told to load."""

    classes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Custom node → the node classes that it had in the build."""
    failed: frozenset[str] = frozenset()
    """Custom nodes that failed in the build."""
    selected: frozenset[str] | None = None
    """The custom nodes that it was started with; None: all."""


@dataclass(frozen=True)
class Sample:
    """One sample of an instance; `at` and `silent` are by the monotonic clock."""

    at: float
    observation: Observation
    silent: float | None = None
    """Since when it hasn't answered."""
    before: str = ""
    """When and why the previous process ended."""
    build: Build = field(default_factory=Build)
    passed: bool = False
    """Whether this process has been healthy: it passed the gate of a run."""
    job: Job | None = None
    listed: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Model folder → the models that it lists."""
    history: tuple[Point, ...] = ()


def differs(previous: Sample, current: Sample) -> bool:
    """Whether anything changed except time, memory and the progress of a job."""
    return _without_measurements(previous) != _without_measurements(current)


def _without_measurements(sample: Sample) -> Sample:
    observation = replace(sample.observation, state=AppState(sample.observation.state.app))
    return replace(sample, at=0.0, observation=observation, silent=None, job=None, history=())
