"""What the health server answers, for OpenAPI and for the code that composes it.

Times are seconds since the epoch, durations seconds, sizes bytes.
"""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field

from ....host.comfyui.condition import (
    Condition,
    Health,
    InstanceType,
    MachineType,
    Reason,
    Status,
)
from ....host.system.plain_text import without_colours

LONGEST = 4096
"""Characters of a text; instances and logs can contain anything."""

_WILD = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def one_line(text: Any) -> Any:
    """The text on one line, without terminal escapes and what isn't valid UTF-8."""
    return _WILD.sub(" ", without_colours(text[:LONGEST])) if isinstance(text, str) else text


Text = Annotated[str, BeforeValidator(one_line)]


class Verdict(BaseModel):
    """What every answer has: the condition that sums up the rest."""

    status: Health
    code: Reason
    """Why it isn't better, for programs."""
    since: float
    """When this status began."""
    reason: Text = ""
    """Why it isn't better, for people; empty when healthy."""
    advice: Text = ""
    """What to do; empty when there is nothing."""


class AnyCondition(BaseModel):
    """What conditions of an instance and of the machine have."""

    status: Status
    health: Health
    """The health that it has because of it."""
    reason: Reason
    message: Text = ""
    advice: Text = ""
    since: float = 0.0
    """When it began."""


class InstanceCondition(AnyCondition):
    """One condition of an instance."""

    type: InstanceType
    observed: Text = ""
    """The fingerprint of the process that was observed."""


class MachineCondition(AnyCondition):
    """One condition of the machine."""

    type: MachineType
    observed: Text = ""
    """The digest of machine.yaml, as the last run read it, and of the lock."""


class Layer(BaseModel):
    """One of the four layers, judged by itself."""

    ok: bool
    reason: Text = ""


class Running(Layer):
    """The process, according to the system and PM2."""

    pid: int | None = None
    uptime: float | None = None
    restarts: int | None = None
    memory: int | None = None
    before: Text = ""
    """When and why the previous process ended, if this server observed that."""


class Job(BaseModel):
    """The job that an instance works on."""

    id: Text
    seconds: float
    percent: float | None = None
    """Of its current step, from the progress bar in the log."""
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
    """Number of jobs, including the running one."""
    job: Job | None = None
    missing_nodes: dict[Text, list[Text]] = {}
    """Custom node → node classes that it had in the build and lacks here."""
    failed_nodes: dict[Text, Text] = {}
    """Custom nodes that couldn't be imported, and why."""
    warmup: Trial | None = None
    canary: Trial | None = None


class Listed(Layer):
    """The models that this instance lists."""

    wrong: dict[Text, Text] = {}
    """Target → why."""


class Workflow(BaseModel):
    """A workflow of machine.yaml, and what this instance lacks of it."""

    name: Text
    ok: bool | None
    """None: not known yet."""
    optional: bool = False
    reason: Text = ""
    missing_classes: dict[Text, Text] = {}
    """Node class → the first node of it."""
    missing_models: dict[Text, Text] = {}
    """Model, as the workflow names it → the node."""


class Layers(BaseModel):
    installed: Layer
    running: Running
    functional: Functional
    models: Listed


class Card(BaseModel):
    """The GPU, according to NVML."""

    name: Text
    uuid: Text
    memory_used: int
    memory_total: int


class Point(BaseModel):
    """One point of the history."""

    at: float
    memory: int | None
    queue: int | None


class Service(BaseModel):
    """An instance, a worker or a program of jobs, and what it waits for."""

    name: Text
    running: bool
    pid: int | None = None
    waits_for: list[Text] = []
    """Names of services; empty when it waits for nothing."""
    reason: Text = ""


class InstanceHealth(Verdict):
    """One instance."""

    age: float
    """Age of the sample."""
    name: Text
    gpu: int
    port: int
    layers: Layers
    conditions: list[InstanceCondition] = []
    """One of each type; the first, Ready, sums up the others."""
    workflows: list[Workflow] = []
    card: Card | None = None
    workers: list[Service] = []
    history: list[Point] = []
    log: list[Text] = []
    """The last lines of the log, when it isn't healthy."""


class InstancesHealth(Verdict):
    """All instances, by GPU."""

    age: float
    instances: dict[Text, InstanceHealth]


class Part(Layer):
    """ComfyUI or a custom node, with the wanted and the actual commit."""

    name: Text
    wanted: Text | None = None
    commit: Text | None = None
    imported: bool | None = None
    """Whether the build's validation imported it; None: not tried."""
    optional: bool = False


class Packages(Layer):
    """The Python environment compared with the lock."""

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
    """Its current work: `receiving objects`, `3 of 67 packages`, `1.2 of 4.3 GB`."""
    reason: Text = ""
    """Why it failed."""
    log: Text | None = None


class Run(BaseModel):
    """The doit run in progress, or the last one."""

    pid: int
    command: Text
    """The command, such as `up`."""
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
    """Whether the file exists."""
    verified: bool
    """Whether it has machine.lock's sha256: hashed when fetched, and unchanged since."""
    size: int | None = None
    listed: dict[Text, bool | None] = {}
    """By GPU: whether that instance lists it; None: not known."""


class ModelsHealth(Verdict):
    """All declared models."""

    age: float
    models: list[Model]


class QueuedRun(BaseModel):
    """A job that runs."""

    id: Text
    instance: Text
    owner: Text
    since: float
    """When it was given to the instance."""
    progress: float | None = None
    """From 0 to 1; None: nothing was said yet."""
    node: Text = ""
    """The one that runs; empty: none, or not known."""
    preview: Text = ""
    """The path of the last picture that it showed, at this server; empty: it showed none."""


class QueueError(BaseModel):
    """Why a job didn't succeed, as ComfyUI or we say it."""

    type: Text
    message: Text
    node: Text = ""
    node_type: Text = ""


class QueueEnd(BaseModel):
    """A job that has ended."""

    id: Text
    status: Literal["succeeded", "failed", "canceled"]
    instance: Text
    ended: float
    seconds: float | None = None
    """How long it ran; None: it never began."""
    error: QueueError | None = None
    picture: Text = ""
    """The path of its first picture at this server; empty: it has none that is shown."""
    thumbnail: Text = ""
    """The path of a smaller form of it."""


class QueueStuck(BaseModel):
    """Jobs that no instance can have now."""

    why: Text
    jobs: int
    id: Text
    """Of the one that was submitted first."""
    since: float
    """When that was."""


class JobQueue(Layer):
    """The jobs at the gateway. Where it doesn't tell (`ok` is false), nothing else is known."""

    advice: Text = ""
    """What to do about dead jobs; empty when there are none."""
    paused: bool | None = None
    """Whether no job is started; None: the store doesn't say."""
    waiting: int | None = None
    oldest: float | None = None
    """When the oldest that waits was submitted; None: none waits."""
    running: int | None = None
    dead: int | None = None
    """Jobs that ended their instance or worker each time."""
    stuck: list[QueueStuck] = []
    """Those that wait in vain, by reason; at most 8."""
    runs: list[QueuedRun] = []
    """Of those that run, at most 32."""
    ended: list[QueueEnd] = []
    """The last 12, the newest first."""


class Overview(Verdict):
    """The whole machine."""

    age: float
    conditions: list[MachineCondition] = []
    """At least one of each type: Available, then Progressing, then Degraded."""
    layers: dict[Literal["installed", "running", "functional", "models"], bool]
    instances: dict[Text, Verdict]
    """By GPU."""
    services: list[Service]
    """Instances and workers, and what each waits for."""
    run: Run | None = None
    """The run in progress, without its tasks."""
    jobs: JobQueue | None = Field(default=None, exclude_if=lambda queue: queue is None)
    """Only where machine.yaml has jobs."""


class Refusal(Verdict):
    """A request that can't be answered: 400, 401, 403, 404, 405, 422, 500, 503."""


def verdict(condition: Condition, since: float) -> dict[str, Any]:
    """The fields of a Verdict."""
    return {
        "status": condition.health,
        "code": condition.reason,
        "since": since,
        "reason": condition.message,
        "advice": condition.advice,
    }


def instance_condition(condition: Condition) -> InstanceCondition:
    return InstanceCondition(**_fields(condition))


def machine_condition(condition: Condition) -> MachineCondition:
    return MachineCondition(**_fields(condition))


def _fields(condition: Condition) -> dict[str, Any]:
    more = {"status": condition.status, "since": condition.since or 0.0}
    return asdict(condition) | more
