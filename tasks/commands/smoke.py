"""doit smoke: one real job through every instance: a small one, or a workflow of machine.yaml."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from doit.exceptions import InvalidCommand

from ..engine.run import Run
from ..host.comfyui import api, own_jobs, workflow_job
from ..host.comfyui.workflow_job import Folders
from ..host.system.failure import Failure
from ..host.system.program_files import PROGRAM
from ..instances import gate
from ..spec import Instance, WorkflowFile, workflow_file
from ..spec.problems import did_you_mean
from ..spec.workflow_needs import Needs
from .shared.command import Call, MachineCommand, instance_words, json_option, option

if TYPE_CHECKING:
    from .shared.documents import SmokeRow, SmokeState

TIMEOUT = 120.0
"""Seconds; the first job on real ComfyUI took 0.4 s, and takes longer behind a queue."""
MARKS = {"ran": "✓", "failed": "✗", "left out": "–"}


@dataclass(frozen=True)
class Tried:
    """What became of the job on one instance."""

    state: SmokeState
    files: Sequence[Path] = ()
    seconds: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class Workflow:
    """The one that is to be sent."""

    name: str
    document: Any
    needs: Needs


class LeftOut(Exception):  # noqa: N818  what becomes of the instance
    """An instance lacks what the workflow needs; `str()` says what."""


class Smoke(MachineCommand):
    doc_purpose = "send one small job, which needs no model, through every instance"
    doc_usage = "[INSTANCE ...]"
    doc_description = (
        "With --workflow it is one of machine.yaml's workflows, with other seeds each time; an "
        "instance that lacks a node class or a model of it is left out. The exit status is 1 when "
        "a job fails, or when none ran."
    )
    takes_names = True
    has_json = True
    cmd_options = (json_option(), option("workflow", "the name of a workflow of machine.yaml", ""))

    @classmethod
    def words(cls, run: Run) -> Iterator[tuple[str, str]]:
        yield from instance_words(run)

    def perform(self, call: Call) -> int:
        run, workflow = call.run, _workflow(call.run, call.options["workflow"])
        instances = call.named() or list(run.instances)
        if not instances:
            raise Failure("there are no instances to send a job to")
        names = ", ".join(each.name for each in instances)
        with (
            run.working("smoke", f"one job in {names}"),
            ThreadPoolExecutor(len(instances)) as pool,
        ):
            results = [*pool.map(partial(_try, run, workflow), instances)]
        if call.options["json"]:
            from .shared import documents

            rows = {str(gpu.gpu): _row(gpu, it) for gpu, it in zip(instances, results, strict=True)}
            self.document = documents.smoke(workflow.name if workflow else None, rows)
        for instance, tried in zip(instances, results, strict=True):
            said = tried.reason or ", ".join(map(str, tried.files))
            print(f"{MARKS[tried.state]} {instance.name}: {said}")
        states = {tried.state for tried in results}
        return 0 if "ran" in states and "failed" not in states else 1


def _row(instance: Instance, tried: Tried) -> SmokeRow:
    return {
        "instance": instance.name,
        "state": tried.state,
        "files": [str(file) for file in tried.files],
        "seconds": tried.seconds,
        "reason": tried.reason,
    }


def _workflow(run: Run, name: str) -> Workflow | None:
    """The one of that name; None: none is asked for. Raises InvalidCommand for an unknown name, and
    Failure when its file has gone."""
    if not name:
        return None
    known: dict[str, WorkflowFile] = {each.name: each for each in run.machine.workflows}
    if name not in known:
        hint = did_you_mean(name, [*known]).rstrip("?")
        raise InvalidCommand(f"no workflow {name}{hint}; known: {', '.join(known) or 'none'}")
    try:
        path = known[name].path
        return Workflow(name, workflow_file.document(path), workflow_file.needs(path))
    except ValueError as error:
        raise Failure(f"workflow {name}: {error}") from None


def _try(run: Run, workflow: Workflow | None, instance: Instance) -> Tried:
    begin = time.monotonic()
    try:
        files = _run(run, workflow, instance)
    except LeftOut as why:
        return Tried("left out", reason=f"not sent: {why}")
    except Failure as failure:
        return Tried("failed", reason=str(failure))
    except OSError as error:
        return Tried("failed", reason=f"{own_jobs.describe_error(error)}: run {PROGRAM}")
    return Tried("ran", files, round(time.monotonic() - begin, 2))


def _run(run: Run, workflow: Workflow | None, instance: Instance) -> list[Path]:
    app = gate.find(run, instance.name)
    if app is None:
        raise Failure(f"it doesn't run: run {PROGRAM}")
    client = api.Client(instance.listen, app.port or instance.port, scheme=app.scheme)
    timeout = float(run.machine.instances.job_timeout) if workflow else TIMEOUT
    job = client.submit(_prompt(client, workflow) if workflow else own_jobs.smoke("SaveImage"))
    folders = Folders(run.layout.outputs(instance.gpu), run.layout.instance(instance.gpu) / "temp")
    return workflow_job.files(client.wait(job, timeout), folders)


def _prompt(client: api.Client, workflow: Workflow) -> workflow_file.Prompt:
    """Raises LeftOut, Failure and OSError."""
    info = client.get("/object_info")
    if not isinstance(info, dict):
        raise api.BadAnswer("it doesn't answer like ComfyUI")
    if lacks := workflow_job.lacks(workflow.name, workflow.needs, info):
        raise LeftOut(lacks)
    return own_jobs.vary(workflow_job.prompt(workflow.document, info))
