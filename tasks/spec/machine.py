"""The machine that machine.yaml and the environment describe."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from . import tls
from .layout import Layout
from .lock_format import Lock
from .model import Jobs, Override, Spec
from .problems import Problem, SpecError
from .variable_references import DEVICE


class Instance(BaseModel):
    """The settings of one ComfyUI process."""

    model_config = ConfigDict(frozen=True, defer_build=True)

    gpu: int
    name: str
    port: int
    args: tuple[str, ...]
    env: dict[str, str]
    """Values may hold `${NAME}`, which is expanded only where it is used."""
    cpu_only: bool
    listen: str

    @property
    def device(self) -> str | None:
        """The part of a GPU (MIG-…) that machine.yaml assigns; None: the whole of `gpu`."""
        return self.env.get(DEVICE)

    @property
    def scheme(self) -> str:
        """http, or https if its arguments name a certificate."""
        return tls.scheme(self.args)


class Machine(Spec):
    """The requested machine: defaults filled in, every path absolute and normalised."""

    file: Path
    enabled: bool = True
    """False: `up` starts no instance (ENABLE_COMFYUI)."""
    selected_nodes: tuple[str, ...] | None = None
    """Names of the nodes to load (COMFYUI_CUSTOM_NODES); None means all."""
    lock: Lock = Lock()
    """machine.lock as it was when this run began."""
    lock_damage: str | None = None
    """What is wrong with machine.lock. Then no run starts, but status and down work."""
    overridden: bool = False
    """Whether the environment overrides something that the lock records; it isn't written then."""
    env: dict[str, str] = Field(default={}, repr=False, exclude=True)
    """`.env.local` and the process environment, the values of `${NAME}`. Holds secrets."""

    @property
    def layout(self) -> Layout:
        return Layout(self.workspace)

    @property
    def wanted_jobs(self) -> Jobs | None:
        """The settings of jobs; None: they are off, or this machine starts nothing."""
        return self.jobs if self.enabled else None

    @property
    def lock_file(self) -> Path:
        return self.file.with_suffix(".lock")

    def instances_for(self, gpu_count: int) -> tuple[Instance, ...]:
        """One instance per GPU; `gpus: auto` means `gpu_count` of them.

        Raises SpecError when two of them share a port.
        """
        if not self.enabled:
            return ()
        gpus: tuple[int, ...]
        match self.instances.gpus:
            case "auto":
                gpus = tuple(range(1 if self.instances.cpu_only else gpu_count))
            case int(number):
                gpus = tuple(range(number))
            case listed:
                gpus = tuple(listed)
        instances = tuple(self.instance(gpu) for gpu in gpus)
        self._refuse_shared_ports(instances)
        return instances

    def instance(self, gpu: int) -> Instance:
        """The settings of a GPU's instance."""
        common = self.instances
        override = common.overrides.get(gpu) or Override()
        return Instance(
            gpu=gpu,
            name=f"comfyui-gpu{gpu}",
            port=override.port or common.port_start + gpu,
            args=common.args + override.args,
            env={**common.env, **override.env},
            cpu_only=common.cpu_only,
            listen=common.listen,
        )

    def _refuse_shared_ports(self, instances: tuple[Instance, ...]) -> None:
        owners: dict[int, str] = {}
        for instance in instances:
            other = owners.setdefault(instance.port, instance.name)
            if other != instance.name or instance.port > 65535:
                why = "is above 65535" if instance.port > 65535 else f"is also {other}'s"
                message = f"port {instance.port} of {instance.name} {why}"
                raise SpecError([Problem(self.file.name, None, "instances", message)])
