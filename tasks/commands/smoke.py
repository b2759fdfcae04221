"""doit smoke: one real job, which needs no model, through every instance."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from ..engine.run import Run
from ..host.comfyui import api, own_jobs
from ..host.system.failure import Failure
from ..host.system.program_files import PROGRAM
from ..instances import gate
from ..spec import Instance
from .shared.command import Call, MachineCommand

TIMEOUT = 120.0
"""Seconds; the first job on real ComfyUI took 0.4 s, and takes longer behind a queue."""


class Smoke(MachineCommand):
    doc_purpose = "send one small job, which needs no model, through every instance"

    def perform(self, call: Call) -> int:
        if not call.run.instances:
            raise Failure("there are no instances to send a job to")
        names = ", ".join(each.name for each in call.run.instances)
        with (
            call.run.working("smoke", f"one job in {names}"),
            ThreadPoolExecutor(len(call.run.instances)) as pool,
        ):
            results = [*pool.map(partial(_try, call.run), call.run.instances)]
        failed = 0
        for instance, (files, reason) in zip(call.run.instances, results, strict=True):
            failed += bool(reason)
            print(f"{'✗' if reason else '✓'} {instance.name}: {reason or files}")
        return 1 if failed else 0


def _try(run: Run, instance: Instance) -> tuple[str, str]:
    """The files of one job and an empty string, or nothing and the reason."""
    try:
        return ", ".join(map(str, _run(run, instance))), ""
    except Failure as failure:
        return "", str(failure)
    except OSError as error:
        return "", f"{own_jobs.describe_error(error)}: run {PROGRAM}"


def _run(run: Run, instance: Instance) -> list[Path]:
    app = gate.find(run, instance.name)
    if app is None:
        raise Failure(f"it doesn't run: run {PROGRAM}")
    client = api.Client(instance.listen, app.port or instance.port, scheme=app.scheme)
    entry = client.wait(client.submit(own_jobs.smoke("SaveImage")), TIMEOUT)
    folder = run.layout.outputs(instance.gpu)
    files = [
        folder / image["subfolder"] / image["filename"]
        for output in entry["outputs"].values()
        for image in output.get("images", [])
    ]
    missing = [str(file) for file in files if not file.is_file() or not file.stat().st_size]
    if missing or not files:
        raise Failure(f"the job succeeded but wrote nothing: {', '.join(missing) or folder}")
    return files
