"""The install scripts of custom nodes: `install.py` and `script:`, run before validation."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from ..engine.run import Run
from ..engine.step import Task, step
from ..environment import restoration, script_records, target
from ..environment import stage as environment
from ..host.generations import manifest
from ..host.python import constraints, environments
from ..host.repositories import git
from ..host.storage import digest_folders, trees
from ..host.system import files, process
from ..host.system.failure import Failure
from ..host.system.program_files import PROGRAM
from ..lock import packages
from ..spec import CustomNode
from . import stage as generation


def tasks(run: Run) -> Iterator[Task]:
    yield step(
        run,
        "generation:scripts",
        "Run the nodes' install scripts, and again when their commit or packages change",
        check=partial(_why_pending, run),
        action=partial(_run_scripts, run),
        preview=partial(_preview, run),
        after=["generation:assemble"],
    )


def _to_run(run: Run) -> list[tuple[CustomNode, str]]:
    """The nodes whose script has not run in this environment, or not in this generation, each
    with its script's version.

    A script writes into both. What it wrote into its node's folder is carried to the next
    generation, with the record that it ran.
    """
    versions = target.script_versions(run)
    pending = digest_folders.read(environment.folder_of(run)).get("pending", [])
    ran = digest_folders.read(generation.folder_of(run)).get("scripts", {})
    return [
        (node, version)
        for node in run.machine.custom_nodes
        if (version := versions.get(node.name))
        and (node.name in pending or ran.get(node.name) != version)
    ]


def _why_pending(run: Run) -> str | None:
    waiting = [node for node, _ in _to_run(run)]
    if not waiting:
        return None
    names = ", ".join(node.name for node in waiting)
    is_in_use = environment.folder_of(run).name in environment.in_use(run)
    if is_in_use and all(node.optional for node in waiting):
        # It would run again in the environment that instances run from.
        run.warn(
            f"the script of custom node {names} failed; "
            f"after {PROGRAM} down, {PROGRAM} runs it again"
        )
        return None
    return f"the scripts of {names} have not run yet"


def _preview(run: Run, log: Path) -> list[str]:
    return [f"run the script of custom node {node.name}" for node, _ in _to_run(run)]


def _run_scripts(run: Run, log: Path) -> None:
    """Run the scripts in machine.yaml's order; record each as soon as it is done."""
    home, folder = environment.folder_of(run), generation.folder_of(run)
    failures: list[Failure] = []
    for node, version in _to_run(run):
        node_log = run.layout.log(f"generation:scripts:{node.name}")
        run.doing(f"the script of {node.name}: {node_log}")
        recorded = script_records.read_records(home)
        recorded.pop(node.name, None)
        try:
            record = _run_and_restore(run, home, folder, node, version, node_log)
        except Failure as failure:
            if node.optional:
                run.warn(f"{failure}; it is optional")
            else:
                failures.append(failure)
            continue
        finally:
            # A failed script may have installed something too.
            environment.record(home, grown=True, scripts=recorded)
            with node_log.open(errors="replace") as lines, log.open("a") as all_logs:
                all_logs.writelines(f"{node.name}: {line.rstrip()}\n" for line in lines)
        pending = [
            name for name in digest_folders.read(home).get("pending", []) if name != node.name
        ]
        recorded[node.name] = record
        environment.record(home, grown=True, scripts=recorded, pending=pending)
        _record_script(folder, node, version)
    if len(failures) == 1:
        raise failures[0]
    if failures:
        raise Failure("; ".join(map(str, failures)), log)


def _run_and_restore(
    run: Run, home: Path, folder: Path, node: CustomNode, version: str, log: Path
) -> dict[str, Any]:
    """Run a node's script, put back the locked packages, and return the script's record.

    Raises Failure.
    """
    script = f"the script of custom node {node.name}"
    previous, start = environments.installed(home), trees.now(home)
    failed = ""
    log.parent.mkdir(parents=True, exist_ok=True)
    files.empty_log(log)
    try:
        _run_script(folder, node, log)
    except process.CommandFailed as failure:
        failed = f"{script} failed: {failure} ({process.last_line(failure.output)})"
    lines, changes = restoration.restore(run, home, script, log, since=start)
    for line in lines:
        run.warn(line)
    if failed:
        raise Failure(failed, log)
    locked = packages.required(run).packages
    record = script_records.make_record(version, home, previous, changes.names, locked)
    if record["added"]:
        added = ", ".join(f"{name} {number}" for name, number in sorted(record["added"].items()))
        run.tell(f"{script} installed {added}, which machine.lock doesn't have")
    return record


def _record_script(folder: Path, node: CustomNode, version: str) -> None:
    """Record that the script ran, and the commit of its checkout, which it may have moved."""
    receipt = digest_folders.read(folder)
    receipt["scripts"][node.name] = version
    place = f"ComfyUI/custom_nodes/{node.name}"
    if place in receipt["heads"]:
        receipt["heads"][place] = git.head(folder / place)
        if manifest.tracked(folder).exists():
            manifest.stamp(folder, place)
    digest_folders.finish(folder, receipt)


def _run_script(folder: Path, node: CustomNode, log: Path) -> None:
    checkout = folder / "ComfyUI" / "custom_nodes" / node.name
    python = generation.python_of(folder)
    env = process.allowed_environment(os.environ, installer=True) | {
        "VIRTUAL_ENV": str(python.parent.parent),
        # ComfyUI-Manager sets these for scripts.
        "COMFYUI_PATH": str(folder / "ComfyUI"),
        "COMFYUI_FOLDERS_BASE_PATH": str(folder / "ComfyUI"),
    }
    env["PATH"] = f"{python.parent}:{env.get('PATH', os.defpath)}"
    env = constraints.within(folder / "environment", env | {"UV_LINK_MODE": "copy"})
    commands: list[list[str | Path]] = []
    if (checkout / target.INSTALL_SCRIPT).is_file():
        commands.append([python, target.INSTALL_SCRIPT])
    if node.script:
        commands.append(["sh", "-c", node.script])
    for argv in commands:
        process.run(argv, env=env, cwd=checkout, log=log, timeout=node.script_timeout)
