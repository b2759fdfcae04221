"""What verdicts are made of, and a verdict before anybody knows since when it is so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ....host.comfyui import machine_state
from ....host.downloads.model_files import ModelState
from .answers import Card, Layer, Packages, Part, Run, Status
from .settings import Settings

ADVICE: Mapping[str, str] = {
    "installing": "wait: the run goes on",
    "failed": "mend what failed, then run doit",
    "interrupted": "run doit: it goes on where it was",
    "starting": "wait",
    "draining": "wait: it is replaced when its jobs are done",
    "down": "run doit",
    "crash loop": "read its log, mend the cause, then run doit",
    "disabled": "unset ENABLE_COMFYUI and run doit to have instances",
}
"""What to do, by status, where nothing better is known."""
RUN = "run doit"


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
    """What was seen of the machine as a whole."""

    settings: Settings
    installed: Installed
    models: Mapping[str, ModelState] | None = None
    """By target; None: the disk has not answered yet."""
    run: Run | None = None
    behind: str = ""
    """Why the machine is held to what ran before."""
    cards: Mapping[int, Card] = field(default_factory=dict)
    workers: Mapping[str, machine_state.Seen] = field(default_factory=dict)

    def awaits(self, name: str) -> bool:
        """Whether the run that is on has this task still to do; `doit build` starts nothing."""
        return (
            self.run is not None
            and self.run.state == "running"
            and any(
                task.name == name and task.state in ("waiting", "running")
                for task in self.run.tasks
            )
        )


@dataclass(frozen=True)
class Judged:
    """A status with its reason and advice."""

    status: Status
    reason: str = ""
    advice: str = ""


def lacking(facts: Facts, reason: str) -> Judged:
    """Models are missing: a run that is on may be fetching them."""
    if facts.run and facts.run.state == "running":
        return Judged("installing", reason, ADVICE["installing"])
    return Judged("unhealthy", reason, RUN)


def known(status: str) -> Status:
    return status  # type: ignore[return-value]
