"""doit submit: send workflows to whichever instance can run them first."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from doit.exceptions import InvalidCommand

from ..host.system.failure import Failure
from ..host.system.program_files import PROGRAM
from ..spec import workflow_file
from .shared import job_report
from .shared.command import Call, MachineCommand, option
from .shared.gateway_client import ENDED, GatewayClient, Job

LOOK = 0.3
"""Seconds between two looks at the jobs that are waited for."""


class Submit(MachineCommand):
    doc_purpose = "send workflows to the pool of instances; --wait for their results"
    doc_description = (
        "FILE is a workflow in API format (in ComfyUI: Workflow > Export (API)). Each becomes a "
        f"job, whose id is printed; {PROGRAM} jobs shows them."
    )
    doc_usage = "[--wait] [--set NODE.INPUT=VALUE] [--priority N] [--webhook URL] FILE ..."
    takes_names = True
    cmd_options = (
        option("wait", "wait for the results; exit with 1 when one is none"),
        {
            "name": "set", "long": "set", "short": "", "type": list, "default": [],
            "metavar": "NODE.INPUT=VALUE", "help": "another value of an input; may be repeated",
        },
        option("priority", "higher ones come first; 0 is usual", 0),
        option("webhook", "the address that is told how each of them ended", ""),
    )  # fmt: skip

    def perform(self, call: Call) -> int:
        if not call.names:
            raise InvalidCommand(f"name a workflow: {PROGRAM} submit workflow.json")
        try:
            workflows = [workflow_file.read(Path(name)) for name in call.names]
        except ValueError as error:
            raise Failure(str(error)) from None
        for given in call.options["set"]:
            _set(workflows, given)
        client = GatewayClient(call.run)
        jobs = []
        for name, workflow in zip(call.names, workflows, strict=True):
            job = client.submit(workflow, call.options["priority"], call.options["webhook"])
            jobs.append(job)
            print(f"{job['id']}  {name}", flush=True)
        return _wait(client, jobs) if call.options["wait"] else 0


def _set(workflows: Sequence[workflow_file.Prompt], given: str) -> None:
    """Raises InvalidCommand where no workflow has this input."""
    place, equals, text = given.partition("=")
    node, dot, name = place.partition(".")
    if not (equals and dot and node and name):
        raise InvalidCommand(f"--set takes NODE.INPUT=VALUE, such as --set=3.seed=7, not {given!r}")
    having = [
        each[node]["inputs"] for each in workflows if name in each.get(node, {}).get("inputs", ())
    ]
    if not having:
        raise InvalidCommand(f"--set {given}: no workflow has a node {node} with an input {name}")
    try:
        value: Any = json.loads(text)
    except ValueError:
        value = text
    for inputs in having:
        inputs[name] = value


def _wait(client: GatewayClient, jobs: Sequence[Job]) -> int:
    """Show their progress, and their results as they come; the exit code."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    console = Console(file=sys.stderr)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    waiting, failed = [job["id"] for job in jobs], 0
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bars:
        shown = {job: bars.add_task(job[: job_report.SHORT], total=1.0) for job in waiting}
        while waiting:
            for name in [*waiting]:
                job = client.job(name)
                state = f"{name[: job_report.SHORT]} {job_report.state(job)}"
                bars.update(shown[name], description=state, completed=job_report.share(job) or 0.0)
                if job["status"] in ENDED:
                    waiting.remove(name)
                    bars.remove_task(shown[name])
                    failed += _told(job)
            if waiting:
                time.sleep(LOOK)
    return 1 if failed else 0


def _told(job: Job) -> bool:
    """Print how a job ended; whether it failed."""
    if job["status"] == "succeeded":
        print(f"✓ {job['id']}")
        for output in job["outputs"] or []:
            print(f"  {output['url']}")
        return False
    print(f"✗ {job['id']}: {job_report.why(job) or job['status']}")
    return True
