"""What a job asks for, what an instance has, and whether the two go together."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Need:
    """What a workflow names. Jobs with equal needs can take each other's places."""

    classes: frozenset[str] = frozenset()
    """Node classes."""
    models: frozenset[str] = frozenset()
    """Models, as folder and name: checkpoints/x.safetensors."""
    memory: int = 0
    """Bytes of these models; 0: not known."""
    checkpoint: str = ""
    """The model that stays loaded when the job is done; empty: none."""


@dataclass(frozen=True)
class Waiting:
    """A job that waits. Times are in seconds, by one clock."""

    id: str
    need: Need
    since: float
    priority: int = 0
    """Higher ones come first."""
    owner: str = ""
    above: int = 0
    """Bytes of the GPU on which it ran out of memory: only a larger one will do."""
    passed: float | None = None
    """When another was first preferred, since its checkpoint was loaded; None: never."""


@dataclass(frozen=True)
class Instance:
    """An instance, as its worker announced it. What isn't known (None) stands in no job's way."""

    name: str
    classes: frozenset[str] | None = None
    models: frozenset[str] | None = None
    memory: int | None = None
    """Bytes of its GPU."""
    checkpoint: str = ""
    """What the last job left loaded."""
    idle_since: float | None = None
    """None: it has a job."""

    @property
    def idle(self) -> bool:
        return self.idle_since is not None


def fits(job: Waiting, instance: Instance) -> bool:
    """Whether the instance can run the job at all."""
    return not any(_lacking(job, instance))


def has_room(need: Need, instance: Instance) -> bool:
    """Whether all the models fit into its GPU. ComfyUI runs larger ones too, but slowly."""
    return instance.memory is None or need.memory <= instance.memory


def why_unfit(job: Waiting, instances: Collection[Instance]) -> str | None:
    """Why the job can run on none of these; None: it can on some, or none is known yet."""
    if not instances or any(fits(job, each) for each in instances):
        return None
    lacking = [set(_lacking(job, each)) for each in instances]
    everywhere = set.intersection(*lacking)
    if everywhere:
        return f"no instance has {', '.join(sorted(everywhere))}"
    nearest = min(zip(lacking, instances, strict=True), key=lambda pair: len(pair[0]))
    return (
        f"no instance has all that it needs; {nearest[1].name} lacks "
        f"{', '.join(sorted(nearest[0]))}"
    )


def _lacking(job: Waiting, instance: Instance) -> Iterator[str]:
    if instance.classes is not None:
        yield from (f"node class {name}" for name in job.need.classes - instance.classes)
    if instance.models is not None:
        yield from (f"model {name}" for name in job.need.models - instance.models)
    if job.above and instance.memory is not None and instance.memory <= job.above:
        yield f"more than {job.above / 1e9:.0f} GB of GPU memory"
