"""What the commands print with `--json`, key by key; `doit schema --of NAME` prints the schemas.

Typed dictionaries: mypy holds their shape, pydantic makes the schemas, and nothing is validated
while a command runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field
from typing_extensions import NotRequired, TypedDict

from ...engine.outputs import FORMAT
from ...engine.reporter import PlanReporter
from ...generation.last_good import Refusal
from ...host.advisories.osv_document import Advisory
from ...host.comfyui.condition import Health, Status, Type
from ...host.generations.contents import Changes, Move, Part
from ...spec import Instance
from .audit_report import Audit, Result
from .generation_report import Entry

Format = Annotated[
    int, Field(description="1. Another number when a key goes or changes its meaning.", ge=1, le=1)
]
Time = Annotated[float, Field(description="Seconds since the epoch.")]
Bytes = Annotated[int, Field(description="Bytes.")]
Asked = Literal["live", "ready", "healthy"]
Text = Annotated[str, Field(description="For people; its wording may change.")]
Code = Annotated[str, Field(description="The reason in one word, such as NotStarted.")]
ExitStatus = Annotated[int, Field(description="The command's exit code.")]


class Error(TypedDict):
    """Why a command failed."""

    message: Text
    code: ExitStatus
    log: Annotated[str | None, Field(description="A file with the details.")]


class Failed(TypedDict):
    """What every command prints with --json when it fails."""

    format: Format
    error: Error


class ConditionRow(TypedDict):
    """A condition, as the health server has it too."""

    type: Type
    status: Status
    reason: Code
    message: Text
    advice: Text
    since: Annotated[float | None, Field(description="Seconds since the epoch.")]
    observed: Annotated[str, Field(description="Digest of what it speaks of, or empty.")]


class InstanceRow(TypedDict):
    """An instance, whether it runs or not."""

    instance: str
    gpu: int
    port: int
    pid: int | None
    memory: Annotated[int | None, Field(description="Bytes, with its children.")]
    uptime: Annotated[float | None, Field(description="Seconds.")]
    restarts: int | None
    queue: Annotated[int | None, Field(description="Jobs that wait or run.")]
    health: Health
    code: Code
    reason: Text
    note: Text
    gpu_name: NotRequired[str]
    gpu_uuid: NotRequired[str]
    gpu_memory_used: NotRequired[Bytes]
    gpu_memory_total: NotRequired[Bytes]


class WorkerRow(TypedDict):
    """A worker's process."""

    worker: str
    gpu: int | None
    process: Annotated[int | None, Field(description="Its pid.")]
    memory: Annotated[int | None, Field(description="Bytes, with its children.")]
    uptime: Annotated[float | None, Field(description="Seconds.")]
    restarts: int | None
    running: bool
    reason: Text


class JobAppRow(TypedDict):
    """A program of jobs."""

    process: Annotated[int | None, Field(description="Its pid.")]
    memory: Annotated[int | None, Field(description="Bytes, with its children.")]
    uptime: Annotated[float | None, Field(description="Seconds.")]
    restarts: int | None
    running: bool
    reason: Text


class Stranger(TypedDict):
    """An app that machine.yaml doesn't name."""

    name: str
    process: int


class Watcher(TypedDict):
    """The watcher's process."""

    process: int | None


class Machine(TypedDict):
    """The machine as a whole."""

    health: Health
    code: Code
    reason: Text
    advice: Text
    wanted: Annotated[str, Field(description="Digest of machine.yaml and the lock as they are.")]
    conditions: list[ConditionRow]


class RunRow(TypedDict):
    """The current run, or the last one that didn't succeed."""

    process: int | None
    task: str
    command: NotRequired[str]
    state: NotRequired[str]
    percent: NotRequired[float | None]
    done: NotRequired[int]
    total: NotRequired[int]
    seconds_left: NotRequired[float | None]
    reason: NotRequired[Text]


class DiskRow(TypedDict):
    """Disk usage, as it was last measured."""

    measured: Time
    used: Annotated[int, Field(description="Bytes in .machine.")]
    free: Bytes
    good: Annotated[list[str], Field(description="Good generations, the newest last.")]
    oldest_frees: Annotated[int | None, Field(description="Bytes.")]


class CordonRow(TypedDict):
    """Why a GPU is out of service."""

    reason: Text
    at: Time
    by_hand: bool


class Behind(TypedDict):
    """Why the machine doesn't run what machine.yaml asks for."""

    wish: str
    generation: str
    reason: Text
    back_on: str
    by_hand: bool
    at: Time
    passed: list[str]
    number: int


class QueueRow(TypedDict):
    """The jobs at the gateway."""

    waiting: int
    running: int
    dead: Annotated[int, Field(description="Jobs that ended their instance or worker each time.")]
    oldest: Annotated[
        float | None,
        Field(description="When the oldest that waits was submitted, in seconds since the epoch."),
    ]
    paused: Annotated[bool | None, Field(description="Whether none is started; null: not known.")]


class StatusDocument(TypedDict):
    """doit status --json"""

    format: Format
    instances: Annotated[dict[str, InstanceRow], Field(description="By GPU.")]
    workers: Annotated[dict[str, WorkerRow], Field(description="By app.")]
    jobs: NotRequired[
        Annotated[dict[str, JobAppRow], Field(description="By app; with `jobs` only.")]
    ]
    strangers: list[Stranger]
    watcher: Watcher
    machine: Machine
    queue: NotRequired[
        Annotated[QueueRow, Field(description="With `jobs`, where the health server tells it.")]
    ]
    page: Annotated[str | None, Field(description="URL of the page, while it is served.")]
    run: RunRow | None
    left_out: Annotated[dict[str, str], Field(description="Optional custom node → why.")]
    not_imported: Annotated[dict[str, str], Field(description="Custom node → why.")]
    disk: DiskRow | None
    drift: Annotated[list[str], Field(description="What was changed by hand or by nodes.")]
    cordoned: Annotated[dict[str, CordonRow], Field(description="By GPU.")]
    behind: NotRequired[Behind]


class PlannedTask(TypedDict):
    """A task that would be done."""

    name: str
    reason: Text
    changes: Annotated[list[Text], Field(description="What it would do, one line each.")]


class FailedTask(TypedDict):
    """A task whose work can't be foretold, because it would fail."""

    name: str
    reason: Text


class PlanDocument(TypedDict):
    """doit plan --json"""

    format: Format
    tasks: Annotated[list[PlannedTask], Field(description="What would be done, in its order.")]
    up_to_date: Annotated[int, Field(description="The number of tasks with nothing to do.")]
    held_back: Annotated[int, Field(description="The number that need a failed one.")]
    news: Annotated[list[Text], Field(description="What would be added, removed or moved.")]
    warnings: list[Text]
    failures: list[FailedTask]


class TaskRow(TypedDict):
    """A task of doit list."""

    name: str
    doc: Text
    parent: Annotated[str | None, Field(description="The task that it is a part of.")]
    after: Annotated[list[str], Field(description="The tasks that it waits for.")]
    up_to_date: NotRequired[Annotated[bool, Field(description="Only with --status.")]]
    reason: NotRequired[Annotated[str, Field(description="Why not. Only with --status.")]]


class ListDocument(TypedDict):
    """doit list --json"""

    format: Format
    tasks: list[TaskRow]


class ProbeDocument(TypedDict):
    """doit probe --json"""

    format: Format
    ok: Annotated[bool, Field(description="Whether the exit code is 0.")]
    asked: Asked
    instances: Annotated[list[str], Field(description="Those asked about; empty: the machine.")]
    reason: Text


class PartRow(TypedDict):
    """ComfyUI or a custom node in a generation."""

    version: Annotated[str, Field(description="Its version, tag or date.")]
    commit: Annotated[str | None, Field(description="null: a local folder.")]


class MoveRow(TypedDict):
    """What going there would change; null: it isn't there."""

    name: str
    before: Annotated[str | None, Field(description="In the current generation.")]
    after: str | None


class ChangesRow(TypedDict):
    """What going there would change."""

    comfyui: Annotated[list[MoveRow], Field(description="One, or none where it is the same.")]
    nodes: list[MoveRow]
    packages: list[MoveRow]


class RefusalRow(TypedDict):
    """Why the machine doesn't run a generation that machine.yaml asks for."""

    reason: Text
    by_hand: bool
    at: Time


class GenerationRow(TypedDict):
    """A generation."""

    id: Annotated[str, Field(description="The name of its folder.")]
    number: Annotated[int | None, Field(description="For rollback; null: never good.")]
    comfyui: PartRow
    nodes: Annotated[dict[str, PartRow], Field(description="By name.")]
    current: Annotated[bool, Field(description="Whether instances start on it.")]
    running: Annotated[list[str], Field(description="The instances that run on it.")]
    good_since: Annotated[float | None, Field(description="Seconds since the epoch.")]
    last_good: bool
    refused: RefusalRow | None
    selectable: Annotated[bool, Field(description="Whether rollback can go there.")]
    size: Annotated[
        int | None,
        Field(description="Bytes that no other generation shares; null: not measured yet."),
    ]
    changes: ChangesRow


class GenerationsDocument(TypedDict):
    """doit generations --json"""

    format: Format
    generations: Annotated[list[GenerationRow], Field(description="The newest first.")]


class JobError(TypedDict):
    """Why a job failed, as ComfyUI or we say it."""

    code: Annotated[str, Field(description="The kind of error, such as ValueError.")]
    message: Text
    node_id: Annotated[str | None, Field(description="The node that failed.")]
    class_type: Annotated[str | None, Field(description="Its class.")]


class WebhookRow(TypedDict):
    """Who is told of the end of a job."""

    url: Annotated[str, Field(description="Without its query, which may be a password.")]
    status: Literal["pending", "delivered", "failed"]
    attempts: int
    next_attempt_at: Annotated[str | None, Field(description="ISO 8601; null: none, or at once.")]
    delivered_at: Annotated[str | None, Field(description="ISO 8601.")]
    error: Annotated[str | None, Field(description="Why the last attempt failed.")]


class JobRow(TypedDict):
    """A job."""

    id: str
    status: Literal["queued", "running", "canceling", "succeeded", "failed", "canceled"]
    submitted: Annotated[str, Field(description="ISO 8601.")]
    queue_position: Annotated[int | None, Field(description="1 is next; null: it doesn't wait.")]
    priority: int
    owner: str
    instance: Annotated[str | None, Field(description="Where it runs or ran last.")]
    attempt: Annotated[int, Field(description="How often it was started.")]
    waits_because: Annotated[
        str | None, Field(description="Why no instance can have it now; null: one can.")
    ]
    error: JobError | None
    webhook: WebhookRow | None


class JobsDocument(TypedDict):
    """doit jobs --json"""

    format: Format
    jobs: Annotated[list[JobRow], Field(description="The newest first, or as they were named.")]


class AdvisoryRow(TypedDict):
    """An advisory that is about a version."""

    id: str
    aliases: list[str]
    summary: Text
    url: str


class AuditedRow(TypedDict):
    """ComfyUI or a custom node."""

    name: str
    version: Annotated[
        str | None, Field(description="Of the registry, or the short commit; null: not known.")
    ]
    result: Result
    reason: Annotated[str, Field(description="What the registry says, or why it can't be judged.")]
    notes: list[Text]
    advisories: list[AdvisoryRow]


class AuditedPackage(TypedDict):
    """A Python package with advisories."""

    name: str
    version: str
    advisories: list[AdvisoryRow]


class AuditDocument(TypedDict):
    """doit audit --json"""

    format: Format
    ok: Annotated[bool, Field(description="Whether the exit code is 0: nothing was found.")]
    sources: Annotated[list[AuditedRow], Field(description="ComfyUI, then the custom nodes.")]
    packages: Annotated[list[AuditedPackage], Field(description="Those with advisories.")]
    packages_asked: Annotated[int, Field(description="How many packages were asked about.")]
    packages_unknown: Annotated[
        list[str], Field(description="Those from elsewhere than an index, which can't be judged.")
    ]
    failed: Annotated[
        list[Text], Field(description="Sources of advisories that gave no answer, and why.")
    ]


SHAPES: dict[str, Any] = {
    "status": StatusDocument,
    "plan": PlanDocument,
    "list": ListDocument,
    "generations": GenerationsDocument,
    "probe": ProbeDocument,
    "jobs": JobsDocument,
    "audit": AuditDocument,
    "error": Failed,
}
"""By the name of the command; error: what each of them prints when it fails."""


def schema(name: str) -> dict[str, Any]:
    """The JSON Schema of a document."""
    from pydantic import TypeAdapter

    found = TypeAdapter(SHAPES[name]).json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **found}


def probe(ok: bool, asked: Asked, chosen: Sequence[Instance], reason: str) -> ProbeDocument:
    """The document of `doit probe`."""
    names = [each.name for each in chosen]
    return {"format": FORMAT, "ok": ok, "asked": asked, "instances": names, "reason": reason}


def plan(reporter: PlanReporter) -> PlanDocument:
    """The document of `doit plan`."""
    failures = [(name, str(failure)) for name, failure in reporter.failures]
    failures += [("", message) for message in reporter.errors]
    return {
        "format": FORMAT,
        "tasks": [
            {"name": name, "reason": lines[0], "changes": lines[1:]}
            for name, lines in reporter.planned
        ],
        "up_to_date": reporter.up_to_date,
        "held_back": reporter.held_back,
        "news": reporter.run.messages.news,
        "warnings": reporter.run.messages.warnings,
        "failures": [{"name": name, "reason": reason} for name, reason in failures],
    }


def generations(entries: list[Entry]) -> GenerationsDocument:
    """The document of `doit generations`."""
    return {"format": FORMAT, "generations": [_generation(each) for each in entries]}


def audit(found: Audit) -> AuditDocument:
    """The document of `doit audit`."""
    return {
        "format": FORMAT,
        "ok": not found.found,
        "sources": [
            {
                "name": each.name,
                "version": each.shown or None,
                "result": each.result,
                "reason": each.reason,
                "notes": [*each.notes],
                "advisories": _advisories(each.advisories),
            }
            for each in found.parts
        ],
        "packages": [
            {"name": p.name, "version": p.version, "advisories": _advisories(p.advisories)}
            for p in found.packages
            if p.advisories
        ],
        "packages_asked": len(found.packages),
        "packages_unknown": [*found.unknown_packages],
        "failed": [*found.failed],
    }


def _advisories(found: Sequence[Advisory]) -> list[AdvisoryRow]:
    return [
        {"id": each.id, "aliases": [*each.aliases], "summary": each.summary, "url": each.page}
        for each in found
    ]


def jobs(found: Sequence[Mapping[str, Any]]) -> JobsDocument:
    """The document of `doit jobs`, from the gateway's answers."""
    return {"format": FORMAT, "jobs": [_job(each) for each in found]}


def _job(found: Mapping[str, Any]) -> JobRow:
    error, hook = found["error"], found["webhook"]
    return {
        "id": found["id"],
        "status": found["status"],
        "submitted": found["create_time"],
        "queue_position": found["queue_position"],
        "priority": found["priority"] or 0,
        "owner": found["owner"],
        "instance": found["instance"],
        "attempt": found["attempt"],
        "waits_because": found["waits_because"],
        "error": {key: error[key] for key in JobError.__annotations__} if error else None,  # type: ignore[typeddict-item]
        "webhook": {key: hook[key] for key in WebhookRow.__annotations__} if hook else None,  # type: ignore[typeddict-item]
    }


def _generation(entry: Entry) -> GenerationRow:
    return {
        "id": entry.name,
        "number": entry.number,
        "comfyui": _part(entry.contents.comfyui),
        "nodes": {name: _part(part) for name, part in entry.contents.nodes.items()},
        "current": entry.current,
        "running": entry.running,
        "good_since": entry.good_at,
        "last_good": entry.last_good,
        "refused": _refusal(entry.refusal),
        "selectable": entry.selectable,
        "size": entry.size,
        "changes": _changes(entry.changes),
    }


def _refusal(refusal: Refusal | None) -> RefusalRow | None:
    if refusal is None:
        return None
    return {"reason": refusal.reason, "by_hand": refusal.by_hand, "at": refusal.at}


def _part(part: Part) -> PartRow:
    return {"version": str(part), "commit": part.commit}


def _changes(changes: Changes) -> ChangesRow:
    return {
        "comfyui": [_move(each) for each in changes.comfyui],
        "nodes": [_move(each) for each in changes.nodes],
        "packages": [_move(each) for each in changes.packages],
    }


def _move(move: Move) -> MoveRow:
    return {"name": move.name, "before": move.before, "after": move.after}
