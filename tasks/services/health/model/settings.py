"""The settings of the health server: a file that `doit up` writes, and the server reads again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import TypeAdapter

from ....host.comfyui.workflow_state import WantedWorkflow
from ....host.downloads.model_files import WantedModel
from ....host.generations.installed import WantedNode
from ....host.system import cordons, files
from ....spec.layout import Layout


@dataclass(frozen=True)
class Instance:
    """An instance that should run; `port` is used while it has no process of its own."""

    gpu: int
    name: str
    listen: str
    port: int
    whole: bool
    """Whether it has a whole GPU, as NVML lists it: not a part of one, not the CPU."""


@dataclass(frozen=True)
class Worker:
    """A worker of one instance."""

    name: str
    gpu: int


@dataclass(frozen=True)
class Jobs:
    """The programs of jobs that should run, in the order in which they start."""

    apps: tuple[str, ...]
    port: int | None
    """Of our NATS server; None: it is another's."""
    gateway: str | None = None
    """Where this machine reaches the gateway; None: older settings, which don't say."""


@dataclass(frozen=True)
class Settings:
    """The settings file; times in seconds."""

    workspace: Path
    machine_file: Path
    lock_file: Path
    listen: str
    port: int
    enabled: bool
    pinned: bool
    """Whether each instance's GPU is recorded by UUID."""
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
    """Whether the watcher restarts unhealthy instances."""
    start_timeout: float
    job_timeout: float
    warmup: Path | None
    canary: Path | None
    canary_every: float
    jobs: Jobs | None = None
    workflows: tuple[WantedWorkflow, ...] = ()
    cordoned: Mapping[int, str] = field(default_factory=dict)
    """GPUs that are out of service → why; `instances` and `workers` are without theirs."""
    declared: str = ""
    """The digest of this file."""

    @property
    def layout(self) -> Layout:
        return Layout(self.workspace)

    def instance(self, gpu: int) -> Instance | None:
        return next((each for each in self.instances if each.gpu == gpu), None)


def read_settings(file: Path) -> Settings:
    """Raises OSError or ValueError when the file can't be read.

    Names may hold lone surrogates, as file names do, which pydantic's own JSON parser refuses.
    """
    found = json.loads(file.read_text(encoding="utf-8"))
    settings = TypeAdapter(Settings).validate_python(found)
    return replace(settings, declared=files.digest(found))


def in_service(settings: Settings) -> Settings:
    """These settings without the instances whose GPU is cordoned now."""
    names = {each.gpu: each.name for each in settings.instances}
    found = {
        gpu: f"the GPU of {names[gpu]} is cordoned {cordon}"
        for gpu, cordon in cordons.read(settings.layout).items()
        if gpu in names
    }
    left = tuple(each for each in settings.instances if each.gpu not in found)
    # A worker of the machine is shown with the first instance.
    first = left[0].gpu if left else 0
    return replace(
        settings,
        instances=left,
        workers=tuple(
            replace(each, gpu=first) if each.gpu in found else each
            for each in settings.workers
            if each.gpu not in found or not each.name.endswith(f"-gpu{each.gpu}")
        ),
        cordoned=found,
    )
