"""What scheduler and workers say to each other; each message is JSON, of core NATS.

A worker asks at ANNOUNCE each second and on every change, which is also what renews its lease, and
says the same at ANNOUNCED to all who listen. The scheduler asks at `worker(name)`.
"""

from __future__ import annotations

import re
from typing import Literal

from pydantic import BaseModel, ConfigDict

from .record import Record

ANNOUNCE = "comfy.jobs.announce"
"""Only schedulers listen here: without one a worker must get no responders."""
ANNOUNCED = "comfy.jobs.announced"
"""The same again, for whoever else wants to know."""
PROGRESS = "comfy.jobs.progress"
"""`PROGRESS.<job id>`: what ComfyUI said at its WebSocket about this job, as it came."""

State = Literal["idle", "busy", "away"]
"""away: it takes no jobs, as it is unhealthy, draining or about to end."""


def worker(instance: str) -> str:
    """The subject at which the worker of this instance is asked."""
    return f"comfy.jobs.worker.{instance}"


def instance_name(machine: str, name: str) -> str:
    """The name of an instance among all machines, as one token of a subject allows."""
    return token(f"{machine}_{name}")


def token(name: str) -> str:
    """The name as one token of a subject."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name)


class Message(BaseModel):
    """What is not known is left out by older programs and ignored by newer ones."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Lease(Message):
    """A job that is leased to an instance."""

    job: str
    attempt: int
    cancel: bool = False
    """Somebody wants the job ended."""


class Announcement(Message):
    """What an instance is like now."""

    instance: str
    machine: str = ""
    url: str = ""
    """Where its machine reaches it."""
    session: str
    """Of this process of the worker."""
    number: int
    """Rises with each announcement of the session."""
    state: State
    why: str = ""
    jobs: tuple[Lease, ...] = ()
    """The job that runs, and others whose result is being written."""
    memory: int | None = None
    """Bytes of its GPU."""
    checkpoint: str = ""
    inventory: str = ""
    """The revision of what it has, in the bucket of inventories; empty: not known yet."""


class Heard(Message):
    """The scheduler's answer to an announcement."""

    leases: tuple[Lease, ...] = ()
    """All that the records lease to this instance."""


class Order(Message):
    """What the scheduler or the gateway wants of a worker."""

    what: Literal["run", "cancel"]
    job: str
    attempt: int = 0
    revision: int = 0
    """Of the record that leases the job."""
    record: Record | None = None
    """That record, to run the job."""


class Reply(Message):
    """Whether the worker does it; `number` is that of its last announcement."""

    done: bool
    why: str = ""
    number: int = 0


class Inventory(Message):
    """What an instance has; None: not known."""

    classes: tuple[str, ...] | None = None
    models: tuple[str, ...] | None = None
    """As folder/name."""
    sizes: dict[str, int] = {}
    """Of models, in bytes, where they are known."""
