"""The gate: waits until an instance is healthy, or can't become so."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from .. import nodes, validation
from ..engine.run import Run
from ..generation import inspection, last_good
from ..generation import stage as generation
from ..host.comfyui import (
    api,
    judge,
    load_report,
    load_result,
    node_classes,
    started_with,
    warmup,
)
from ..host.comfyui.judge import Observation, Rules
from ..host.comfyui.load_report import Report
from ..host.pm2 import app_processes, apps, endings, pm2
from ..host.pm2.app_state import AppState
from ..host.system import files
from ..host.system.failure import Failure
from ..links import folder_types
from ..spec import Instance

PATIENCE = 10.0
"""Seconds that an instance may take to list its node classes: 70 ms for 500."""


def find(run: Run, name: str) -> apps.App | None:
    """The app of that name, if it runs."""
    return next((app for app in pm2.running(run.layout) if app.name == name), None)


def probe(instance: Instance, app: apps.App) -> api.ProbeResult:
    """Ask an instance at the address that it was started with."""
    listen = started_with.listens_on(app.pid, instance.listen)
    return api.probe(listen, app.port or instance.port, scheme=app.scheme)


def passed(run: Run, instance: Instance, app: apps.App) -> bool:
    """Whether it was this very process that passed the gate."""
    noted = files.read_receipt(run.layout.healthy(instance.gpu))
    return noted == _passed(app) and is_warm(run, instance, app)


def is_warm(run: Run, instance: Instance, app: apps.App) -> bool:
    """Whether its warm-up job has finished, where there is one."""
    return run.machine.health.warmup is None or warmup.is_warm(run.layout, instance.gpu, app)


def note(run: Run, instance: Instance) -> None:
    """Note which process passed the gate."""
    if app := find(run, instance.name):
        files.write_receipt(run.layout.healthy(instance.gpu), _passed(app))


def _passed(app: apps.App) -> dict[str, object]:
    return {"pid": app.pid, "fingerprint": app.fingerprint}


def wait(run: Run, instances: Sequence[Instance], begin: float) -> None:
    """Wait until instances are healthy and warm, with all nodes and folders that they should have.

    Raises Failure as soon as one died, or `health.timeout` seconds after `begin` (monotonic).
    """
    answering = [(instance, _loaded(run, instance, begin)) for instance in instances]
    if run.machine.health.warmup is not None and answering:
        run.doing(f"{', '.join(each.name for each, _ in answering)}: its warm-up job")
        with ThreadPoolExecutor(len(answering)) as pool:
            list(pool.map(lambda each: _warm(run, each[0], each[1], begin), answering))


def _loaded(run: Run, instance: Instance, begin: float) -> apps.App:
    """The app of an instance that answers, and has loaded all that it should."""
    app = _wait(run, instance, begin)
    report = load_report.of_process(run.layout.reports(instance.gpu), app.pid) or Report()
    if _chosen(run) and not report.settled:
        run.warn(
            f"which custom nodes {instance.name} loaded is not known: its process didn't report it"
        )
    found = judge.judge(_observation(run, instance, app, report), _rules(run))
    for each in found:
        if each.reason == "OptionalNodeFailed":
            run.warn(f"{instance.name}: {each.message}")
    if wrong := [each.message for each in found if not each.is_healthy]:
        raise Failure(f"{instance.name}: {'; '.join(wrong)}", run.layout.log(instance.name))
    return app


def _warm(run: Run, instance: Instance, app: apps.App, begin: float) -> None:
    import psutil

    file = run.machine.health.warmup
    assert file is not None
    left = begin + run.machine.health.timeout - time.monotonic()
    trial = warmup.warm(run.layout, instance.gpu, app, instance.listen, file, max(left, api.POLL))
    if not trial.ok:
        log, why = run.layout.log(instance.name), trial.reason
        if not psutil.pid_exists(app.pid):
            why = f"it died: {_gist(run, instance, app)}"
        raise Failure(f"{instance.name} failed its warm-up job {file} (health.warmup): {why}", log)


def _wait(run: Run, instance: Instance, begin: float) -> apps.App:
    """The app of an instance once it answers."""
    import psutil

    log = run.layout.log(instance.name)
    app: apps.App | None = None
    wanted = last_good.wanted_fingerprints(run, [instance]).get(instance.name)
    while True:
        app = app or find(run, instance.name)
        seconds = time.monotonic() - begin
        if (app and not psutil.pid_exists(app.pid)) or (
            not app and seconds > app_processes.APPEARS
        ):
            why = _gist(run, instance, app)
            more = inspection.why_it_fails(last_good.folder_of(run))
            why += f"; {more}" if more else ""
            raise Failure(f"{instance.name} died while it started: {why}", log)
        answer = probe(instance, app) if app else api.ProbeResult(False)
        run.doing(_in_words(run, instance, app))
        if app and answer.healthy and app.fingerprint == wanted:
            return app
        if seconds > run.machine.health.timeout:
            raise Failure(
                f"{instance.name} isn't healthy after {run.machine.health.timeout} s "
                f"(health.timeout): {answer.reason}",
                log,
            )
        time.sleep(api.POLL)


def _in_words(run: Run, instance: Instance, app: apps.App | None) -> str:
    """How far an instance is that doesn't answer yet."""
    if app is None:
        return f"{instance.name}: PM2 starts it"
    report = load_report.of_process(run.layout.reports(instance.gpu), app.pid)
    return f"{instance.name}: {load_report.in_words(report)}"


def _gist(run: Run, instance: Instance, app: apps.App | None) -> str:
    """Why a process ended, for a message that names the log."""
    ending = endings.settled(run.layout, instance.name, app.pid if app else None)
    return ending.gist if ending else "no output"


def _observation(run: Run, instance: Instance, app: apps.App, report: Report) -> Observation:
    """What an instance that answers has loaded, and which model folders it uses.

    A custom node can be loaded in the build and not here. What the process doesn't report is no
    failure; the build has warned of an optional node that failed there.
    """
    layout, listen, gpu = run.layout, instance.listen, instance.gpu
    folder, chosen = last_good.folder_of(run), _chosen(run)
    in_build = {name for name, result in load_result.read(folder).items() if result.failed}
    warned = in_build - load_result.unproved(folder) - _required(run)
    port = app.port or instance.port
    paths = api.ask(listen, port, "/internal/folder_paths", PATIENCE, scheme=app.scheme)
    return Observation(
        name=instance.name,
        state=AppState(app),
        answer=api.ProbeResult(True),
        classes=node_classes.listed(layout, gpu, app, listen, PATIENCE),
        failed_nodes={
            name: str(validation.mask_secrets(run, result))
            for name, result in load_result.of_report(report, chosen).items()
            if result.failed and name not in warned and not load_result.is_own(name)
        },
        folders={os.path.realpath(path) for each in paths.values() for path in each}
        if isinstance(paths, dict)
        else None,
    )


def _rules(run: Run) -> Rules:
    known = node_classes.expected(last_good.folder_of(run))
    return Rules(
        start_timeout=run.machine.health.timeout,
        restarts=run.machine.instances.restart_unhealthy,
        required=_required(run),
        classes={name: known[name] for name in _chosen(run) if name in known},
        lists_classes=True,
        folders={str(path): os.path.realpath(path) for path in folder_types.expected_folders(run)},
    )


def _required(run: Run) -> set[str]:
    return {node.name for node in run.machine.custom_nodes if not node.optional}


def _chosen(run: Run) -> set[str]:
    """The custom nodes that an instance is to load."""
    chosen = {node.name for node in nodes.present_nodes(run)}
    if applying := last_good.refusal(run):
        # What is gone back to need not have the nodes that machine.yaml names now.
        chosen = generation.nodes_of(run.layout.generations / applying.back_on)
    if run.machine.selected_nodes is not None:
        chosen &= set(run.machine.selected_nodes)
    return chosen - set(validation.fatal_nodes(last_good.folder_of(run)))
