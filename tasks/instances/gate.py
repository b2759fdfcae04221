"""The gate: an instance is healthy, or is known not to become so."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor

from .. import nodes, validation
from ..engine.run import Run
from ..generation import last_good
from ..host.comfyui import api, load_report, load_result, node_classes, object_info, warmup
from ..host.pm2 import app_processes, apps, log_evidence, pm2
from ..host.system import files
from ..host.system.failure import Failure
from ..links import folder_types
from ..spec import Instance

FLUSH = 0.3
"""Seconds in which PM2 writes down the last words of an app that died."""
PATIENCE = 10.0
"""Seconds that an instance may take to list its node classes: 70 ms for 500."""


def find(run: Run, name: str) -> apps.App | None:
    """The app of that name, if it runs."""
    layout = run.layout
    for app in pm2.running(layout):
        if app.name == name:
            return app
    return None


def probe(instance: Instance, app: apps.App) -> api.Health:
    """Ask an instance at the port that it was started with."""
    return api.probe(instance.listen, app.port or instance.port, scheme=app.scheme)


def passed(run: Run, instance: Instance, app: apps.App) -> bool:
    """Whether it was this very process that passed the gate."""
    noted = files.read_receipt(run.layout.healthy(instance.gpu))
    return noted == _passed(app) and is_warm(run, instance, app)


def is_warm(run: Run, instance: Instance, app: apps.App) -> bool:
    """Whether its warm-up job has come through, where there is one."""
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
    answering = [(instance, _answering(run, instance, begin)) for instance in instances]
    if run.machine.health.warmup is not None and answering:
        with ThreadPoolExecutor(len(answering)) as pool:
            list(pool.map(lambda each: _warm(run, each[0], each[1], begin), answering))


def _answering(run: Run, instance: Instance, begin: float) -> apps.App:
    words = run.layout.logs / f"{instance.name}.log"
    app = _wait(run, instance, begin)
    client = api.Client(instance.listen, app.port or instance.port, scheme=app.scheme)
    try:
        _check_nodes(run, instance, app)
        _check_folders(run, instance, client)
    except OSError as error:
        raise Failure(f"{instance.name} answered and then didn't: {error}", words) from error
    return app


def _warm(run: Run, instance: Instance, app: apps.App, begin: float) -> None:
    import psutil

    file = run.machine.health.warmup
    assert file is not None
    left = begin + run.machine.health.timeout - time.monotonic()
    trial = warmup.warm(run.layout, instance.gpu, app, instance.listen, file, max(left, api.POLL))
    if not trial.ok:
        words = run.layout.logs / f"{instance.name}.log"
        why = trial.reason
        if not psutil.pid_exists(app.pid):
            time.sleep(FLUSH)
            why = f"it died: {log_evidence.gist(words)}"
        raise Failure(
            f"{instance.name} failed its warm-up job {file} (health.warmup): {why}", words
        )


def _wait(run: Run, instance: Instance, begin: float) -> apps.App:
    import psutil

    words = run.layout.logs / f"{instance.name}.log"
    app: apps.App | None = None
    wanted = last_good.wanted_fingerprints(run, [instance]).get(instance.name)
    while True:
        app = app or find(run, instance.name)
        seconds = time.monotonic() - begin
        if (app and not psutil.pid_exists(app.pid)) or (
            not app and seconds > app_processes.APPEARS
        ):
            time.sleep(FLUSH)
            said = log_evidence.gist(words)
            raise Failure(f"{instance.name} died while it started: {said}", words)
        health = probe(instance, app) if app else api.Health(False)
        if app and health.healthy and app.fingerprint == wanted:
            return app
        if seconds > run.machine.health.timeout:
            raise Failure(
                f"{instance.name} isn't healthy after {run.machine.health.timeout} s "
                f"(health.timeout): {health.reason}",
                words,
            )
        time.sleep(api.POLL)


def _check_nodes(run: Run, instance: Instance, app: apps.App) -> None:
    """A node can be loaded in the build and not here, or lack node classes that it had there.

    Raises Failure for a required one. What the process doesn't tell is no failure.
    """
    layout, chosen = run.layout, _chosen(run)
    report = load_report.of_process(layout.reports(instance.gpu), app.pid) or load_report.Report()
    results = {
        name: validation.mask_secrets(run, result)
        for name, result in load_result.of_report(report, chosen).items()
        if not load_result.is_own(name)
    }
    required = {node.name for node in run.machine.custom_nodes if not node.optional}
    failed = {name: str(result) for name, result in results.items() if result.failed}
    for name in sorted(set(failed) - required - _failed_in_build(run)):
        run.warn(f"custom node {name} on {instance.name} {failed[name]}")
    if chosen and not report.settled:
        run.warn(f"which custom nodes {instance.name} loaded is not known: its process didn't tell")
    there = object_info.classes(layout, instance.gpu, app, instance.listen, PATIENCE)
    if there is None:
        raise OSError("it doesn't list its node classes")
    for name, classes in node_classes.missing(_expected(run, chosen, failed), there).items():
        failed[name] = f"lacks {', '.join(classes[:3])}, which it had in the build"
        if name not in required:
            run.warn(f"custom node {name} on {instance.name} {failed[name]}")
    if missing := sorted(set(failed) & required):
        raise Failure(
            "; ".join(f"custom node {name} on {instance.name} {failed[name]}" for name in missing),
            layout.logs / f"{instance.name}.log",
        )


def _failed_in_build(run: Run) -> set[str]:
    """Those of which the build has said so."""
    folder = last_good.folder_of(run)
    failed = {name for name, result in load_result.read(folder).items() if result.failed}
    return failed - load_result.unproved(folder)


def _chosen(run: Run) -> set[str]:
    """The custom nodes that an instance is to load."""
    chosen = {node.name for node in nodes.present_nodes(run)}
    if run.machine.selected_nodes is not None:
        chosen &= set(run.machine.selected_nodes)
    return chosen - set(validation.fatal_nodes(last_good.folder_of(run)))


def _expected(
    run: Run, chosen: Collection[str], failed: Collection[str]
) -> dict[str, tuple[str, ...]]:
    """The node classes of each custom node that is to be loaded, and was."""
    known = node_classes.expected(last_good.folder_of(run))
    return {name: known[name] for name in set(chosen) - set(failed) if name in known}


def _check_folders(run: Run, instance: Instance, client: api.Client) -> None:
    """ComfyUI says itself where it looks for models; its configuration only says what it should."""
    paths = [path for paths in client.get("/internal/folder_paths").values() for path in paths]
    seen = {os.path.realpath(path) for path in paths}
    missing = [
        path for path in folder_types.expected_folders(run) if os.path.realpath(path) not in seen
    ]
    if missing:
        raise Failure(
            f"{instance.name} doesn't look for models in {missing[0]}: see that no argument or "
            "custom node changes its model paths",
            run.layout.logs / f"{instance.name}.log",
        )
