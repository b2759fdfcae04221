"""What the health server answers, for OpenAPI and for the code that composes it.

Times are seconds since the epoch, durations seconds, sizes bytes.
"""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator

from ....host.comfyui.condition import Condition, Health, Reason, Status, Type

LONGEST = 4096
"""Characters of a text; much of it comes from instances and logs, which can hold anything."""

_ANSI = re.compile("\x1b\\[[0-9;?]*[A-Za-z]")
_WILD = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def tame(text: Any) -> Any:
    """The text without what moves a terminal's cursor, breaks a line or isn't valid UTF-8."""
    return _WILD.sub(" ", _ANSI.sub("", text[:LONGEST])) if isinstance(text, str) else text


Text = Annotated[str, BeforeValidator(tame)]


class Verdict(BaseModel):
    """What every answer says: one condition, the sum of all that is known."""

    status: Health
    code: Reason
    """Why it isn't better, for programs."""
    since: float
    """When it began to be so."""
    reason: Text = ""
    """Why it isn't better, for people; empty when healthy."""
    advice: Text = ""
    """What to do; empty when there is nothing."""


class InstanceCondition(BaseModel):
    """One thing that is true or false of an instance."""

    type: Type
    status: Status
    health: Health
    """What the instance is on account of it."""
    reason: Reason
    message: Text = ""
    advice: Text = ""
    since: float = 0.0
    """When it began to be so."""
    observed: Text = ""
    """The fingerprint of the process that it speaks of."""


class Layer(BaseModel):
    """One of the four, true or false by itself."""

    ok: bool
    reason: Text = ""


class Running(Layer):
    """The process, by the system and PM2."""

    pid: int | None = None
    uptime: float | None = None
    restarts: int | None = None
    memory: int | None = None
    before: Text = ""
    """When and why the process before it ended, if this server observed that."""


class Job(BaseModel):
    """The job that an instance works on."""

    id: Text
    seconds: float
    percent: float | None = None
    """Of its present step, by the progress bar in its log."""
    step: Text = ""


class Trial(BaseModel):
    """The last warm-up or canary job."""

    ok: bool
    at: float
    seconds: float | None = None
    reason: Text = ""


class Functional(Layer):
    """What it answers over HTTP."""

    queue: int | None = None
    """Jobs, the running one included."""
    job: Job | None = None
    missing_nodes: dict[Text, list[Text]] = {}
    """Node classes that the build had and the instance lacks, by custom node."""
    failed_nodes: dict[Text, Text] = {}
    """Custom nodes that it could not import, and why."""
    warmup: Trial | None = None
    canary: Trial | None = None


class Listed(Layer):
    """The models as this instance sees them."""

    wrong: dict[Text, Text] = {}
    """Target → why."""


class Layers(BaseModel):
    installed: Layer
    running: Running
    functional: Functional
    models: Listed


class Card(BaseModel):
    """The GPU, by NVML."""

    name: Text
    uuid: Text
    memory_used: int
    memory_total: int


class Point(BaseModel):
    """One moment of the history."""

    at: float
    memory: int | None
    queue: int | None


class Service(BaseModel):
    """A worker, and what it waits for."""

    name: Text
    running: bool
    pid: int | None = None
    waits_for: list[Text] = []
    """Names of services; empty when it waits for nothing."""
    reason: Text = ""


class InstanceHealth(Verdict):
    """One instance."""

    age: float
    """Of the sample."""
    name: Text
    gpu: int
    port: int
    layers: Layers
    conditions: list[InstanceCondition] = []
    """One of each type; the first, Ready, is the sum of the others."""
    card: Card | None = None
    workers: list[Service] = []
    history: list[Point] = []
    log: list[Text] = []
    """The last lines, when it isn't healthy."""


class InstancesHealth(Verdict):
    """All of them, by GPU."""

    age: float
    instances: dict[Text, InstanceHealth]


class Part(Layer):
    """ComfyUI or a custom node: the commit that should be there and the one that is."""

    name: Text
    wanted: Text | None = None
    commit: Text | None = None
    imported: bool | None = None
    """In the build's validation; None: not tried."""
    optional: bool = False


class Packages(Layer):
    """The Python environment against the lock."""

    wanted: int = 0
    installed: int = 0
    wrong: dict[Text, Text] = {}
    """Package → what is wrong with it."""


class Task(BaseModel):
    """One task of a run."""

    name: Text
    state: Literal["waiting", "running", "done", "up to date", "failed", "held back"]
    doc: Text = ""
    began: float | None = None
    seconds: float | None = None
    percent: float | None = None
    detail: Text = ""
    """What it is doing: `receiving objects`, `3 of 67 packages`, `1.2 of 4.3 GB`."""
    reason: Text = ""
    """Why it failed."""
    log: Text | None = None


class Run(BaseModel):
    """The doit run in progress, or the last one."""

    pid: int
    command: Text
    """What was asked for, such as `up`."""
    state: Literal["running", "succeeded", "failed", "interrupted"]
    began: float
    seconds: float
    seconds_left: float | None = None
    """An estimate, from how long the tasks took when they last ran; None: unknown."""
    percent: float | None = None
    done: int
    total: int
    tasks: list[Task]


class Installation(Verdict):
    """What is installed, and the run that installs."""

    installed: Layer
    generation: Text | None = None
    comfyui: Part | None = None
    nodes: list[Part] = []
    packages: Packages
    run: Run | None = None


class Model(Layer):
    """One declared model."""

    target: Text
    optional: bool = False
    present: bool
    """There is a file behind the name."""
    verified: bool
    """It is what machine.lock says: hashed when it was fetched, and unchanged since."""
    size: int | None = None
    listed: dict[Text, bool | None] = {}
    """By GPU: whether that instance lists it; None: not known."""


class ModelsHealth(Verdict):
    """All declared models."""

    age: float
    models: list[Model]


class Overview(Verdict):
    """The whole machine."""

    age: float
    layers: dict[Literal["installed", "running", "functional", "models"], bool]
    instances: dict[Text, Verdict]
    """By GPU."""
    services: list[Service]
    """Instances and workers, and what each waits for."""
    run: Run | None = None
    """The run in progress, without its tasks."""


class Refusal(Verdict):
    """A question that can't be answered: 400, 401, 403, 404, 405, 422, 500, 503."""


def verdict(told: Condition, since: float) -> dict[str, Any]:
    """The fields of a Verdict."""
    return {
        "status": told.health,
        "code": told.reason,
        "since": since,
        "reason": told.message,
        "advice": told.advice,
    }


def instance_condition(told: Condition) -> InstanceCondition:
    return InstanceCondition(**asdict(told) | {"status": told.status, "since": told.since or 0.0})
