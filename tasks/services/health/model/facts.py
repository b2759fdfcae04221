"""What was observed of the machine as a whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ....host.downloads.model_files import ModelState
from ....host.pm2.app_state import AppState
from .answers import Card, Layer, Packages, Part, Run
from .settings import Settings

SILENT = "the disk has not answered yet"


@dataclass(frozen=True)
class Installed:
    """What is on the disk of ComfyUI, nodes and packages."""

    layer: Layer
    packages: Packages = field(default_factory=lambda: Packages(ok=False))
    generation: str | None = None
    comfyui: Part | None = None
    nodes: Sequence[Part] = ()
    degraded: Sequence[str] = ()
    """What is wrong and stops nothing."""
    classes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Node classes that each custom node had in the build."""


@dataclass(frozen=True)
class Facts:
    """All of it."""

    settings: Settings
    installed: Installed
    models: Mapping[str, ModelState] | None = None
    """By target; None: the disk has not answered yet."""
    run: Run | None = None
    behind: str = ""
    """Why the machine is held to what ran before."""
    cards: Mapping[int, Card] = field(default_factory=dict)
    workers: Mapping[str, AppState] = field(default_factory=dict)

    @property
    def installs(self) -> bool:
        """Whether a run is in progress."""
        return self.run is not None and self.run.state == "running"

    def awaits(self, name: str) -> bool:
        """Whether the run in progress has still to do this task; `doit build` starts nothing."""
        tasks = self.run.tasks if self.run and self.installs else []
        return any(each.name == name and each.state in ("waiting", "running") for each in tasks)
