"""The settings of the health server: a file that `doit up` writes, and the server reads again."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ....host.downloads.model_files import WantedModel
from ....host.generations.installed import WantedNode
from ....spec.layout import Layout


@dataclass(frozen=True)
class Instance:
    """An instance that should run; `port` counts where it doesn't, else the port of its process."""

    gpu: int
    name: str
    listen: str
    port: int
    whole: bool
    """It has a whole GPU, which NVML shows: neither a part of one nor none."""


@dataclass(frozen=True)
class Worker:
    """A worker of one instance."""

    name: str
    gpu: int


@dataclass(frozen=True)
class Settings:
    """All of them; times in seconds."""

    workspace: Path
    machine_file: Path
    lock_file: Path
    listen: str
    port: int
    enabled: bool
    pinned: bool
    """Which GPU an instance has is recorded by UUID."""
    instances: tuple[Instance, ...]
    workers: tuple[Worker, ...]
    comfyui: WantedNode
    nodes: tuple[WantedNode, ...]
    selected: tuple[str, ...] | None
    """Names of the custom nodes to load (COMFYUI_CUSTOM_NODES); None: all."""
    models: tuple[WantedModel, ...]
    models_folder: Path
    store: Path
    restarts: bool
    """The watcher restarts an instance that is unhealthy."""
    start_timeout: float
    job_timeout: float
    warmup: Path | None
    canary: Path | None
    canary_every: float

    @property
    def layout(self) -> Layout:
        return Layout(self.workspace)

    def instance(self, gpu: int) -> Instance | None:
        return next((each for each in self.instances if each.gpu == gpu), None)


def read(file: Path) -> Settings:
    """Raises OSError, ValueError, TypeError or LookupError when it can't be read."""
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    for key, kind in (
        ("instances", Instance),
        ("workers", Worker),
        ("nodes", WantedNode),
        ("models", WantedModel),
    ):
        found[key] = tuple(kind(**each) for each in found[key])
    found["comfyui"] = WantedNode(**found["comfyui"])
    for key in ("workspace", "machine_file", "lock_file", "models_folder", "store"):
        found[key] = Path(found[key])
    if found["selected"] is not None:
        found["selected"] = tuple(found["selected"])
    for key in ("warmup", "canary"):
        found[key] = Path(found[key]) if found[key] else None
    return Settings(**found)
