"""The machine that a file and an environment describe."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from . import tls
from .layout import Layout
from .lock_format import Lock
from .model import Override, Spec
from .problems import Problem, SpecError
from .variable_references import DEVICE


class Instance(BaseModel):
    """One ComfyUI process, as it is to run."""

    model_config = ConfigDict(frozen=True, defer_build=True)

    gpu: int
    name: str
    port: int
    args: tuple[str, ...]
    env: dict[str, str]
    """Values may hold `${NAME}`: expand them at the place of use only."""
    cpu_only: bool
    listen: str

    @property
    def device(self) -> str | None:
        """The part of a GPU (MIG-…) that machine.yaml gives it, None for the whole of `gpu`."""
        return self.env.get(DEVICE)

    @property
    def scheme(self) -> str:
        """http, or https where its arguments name a certificate."""
        return tls.scheme(self.args)


class Machine(Spec):
    """The machine as it is to be: defaults filled in, every path absolute and normalised."""

    file: Path
    enabled: bool = True
    """False: `up` starts no instance (ENABLE_COMFYUI)."""
    selected_nodes: tuple[str, ...] | None = None
    """Names of the nodes to load (COMFYUI_CUSTOM_NODES); None means all."""
    lock: Lock = Lock()
    """What machine.lock said when this run began."""
    lock_damage: str | None = None
    """What is wrong with machine.lock: no run begins with it, what runs can be looked at and ended.
    """
    overridden: bool = False
    """The environment changed what the lock is about, so the lock stays as it is."""
    env: dict[str, str] = Field(default={}, repr=False, exclude=True)
    """`.env.local` and the process environment, to expand `${NAME}` from. Holds secrets."""

    @property
    def layout(self) -> Layout:
        return Layout(self.workspace)

    @property
    def lock_file(self) -> Path:
        return self.file.with_suffix(".lock")

    def instances_for(self, gpu_count: int) -> tuple[Instance, ...]:
        """One instance per GPU; `gpus: auto` means `gpu_count` of them.

        Raises SpecError when only that number shows that two instances share a port.
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
        found = tuple(self.instance(gpu) for gpu in gpus)
        self._refuse_shared_ports(found)
        return found

    def instance(self, gpu: int) -> Instance:
        """The instance of a GPU, as machine.yaml wants it."""
        common = self.instances
        own = common.overrides.get(gpu) or Override()
        return Instance(
            gpu=gpu,
            name=f"comfyui-gpu{gpu}",
            port=own.port or common.port_start + gpu,
            args=common.args + own.args,
            env={**common.env, **own.env},
            cpu_only=common.cpu_only,
            listen=common.listen,
        )

    def _refuse_shared_ports(self, instances: tuple[Instance, ...]) -> None:
        owners: dict[int, str] = {}
        for instance in instances:
            other = owners.setdefault(instance.port, instance.name)
            if other != instance.name or instance.port > 65535:
                why = "is above 65535" if instance.port > 65535 else f"is also {other}'s"
                raise SpecError(
                    [
                        Problem(
                            self.file.name,
                            None,
                            "instances",
                            f"port {instance.port} of {instance.name} {why}",
                        )
                    ]
                )
