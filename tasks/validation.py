"""Validation: every custom node is really imported, before anything is started with it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from tasks import environment, generation, nodes
from tasks.engine.step import Task, step
from tasks.engine.warnings import warn
from tasks.host import files, gpu, process
from tasks.host.failure import Failure
from tasks.host.quick_test import QuickTest, Result
from tasks.spec import Machine, expand
from tasks.spec.layout import Layout

#: What torch and CUDA libraries say when no GPU or driver is there.
NO_GPU = re.compile(
    r"Found no NVIDIA driver|not compiled with CUDA|No CUDA GPUs|CUDA (is not|unavailable|driver)"
    r"|cuda.*not available|libcuda|libnvidia|no kernel image|CUDA error",
    re.I,
)


def tasks(machine: Machine) -> Iterator[Task]:
    layout = Layout(machine.workspace)
    yield step(
        "validation",
        "Every custom node imports; then the generation is the current one",
        check=partial(_unvalidated, machine),
        action=partial(_validate, machine),
        log=layout.log("validation"),
        after=["generation"],
    )


def proof(machine: Machine) -> Iterator[Task]:
    layout = Layout(machine.workspace)
    yield step(
        "proof",
        "Nodes that a build could not prove (GPU, variables), here on the machine",
        check=partial(_unproved, machine),
        action=partial(_prove, machine),
        log=layout.log("proof"),
        after=["validation"],
    )


def read(folder: Path) -> dict[str, dict[str, Any]]:
    """Results of a generation by custom node: `state`, `seconds`, `reason`, `fatal`."""
    found: dict[str, dict[str, Any]] = files.read_receipt(_result(folder)).get("nodes", {})
    return found


def fatal(folder: Path) -> list[str]:
    """The nodes that ComfyUI can't be started with."""
    return sorted(name for name, node in read(folder).items() if node["fatal"])


def _result(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.validation.json")


def _unvalidated(machine: Machine) -> str | None:
    layout = Layout(machine.workspace)
    folder = generation.folder_of(machine)
    if not files.read_receipt(_result(folder)):
        return f"{folder.name} was not validated"
    failed = [name for name, node in read(folder).items() if node["state"] == "failed"]
    if declared := [node.name for node in machine.custom_nodes if node.name in failed]:
        return f"{', '.join(declared)} failed to import"
    if files.link_target(layout.current) != _current_target(layout, folder):
        return f"{folder.name} isn't the current generation"
    if files.link_target(machine.comfyui.install_path) != _install_target(machine):
        return f"{machine.comfyui.install_path} doesn't point at ComfyUI"
    return None


def _validate(machine: Machine, log: Path) -> None:
    layout = Layout(machine.workspace)
    folder = generation.folder_of(machine)
    env = _environment(machine)
    results = _quick_test(machine, folder, ["--cpu"], env, log).run()
    environment.record(environment.folder_of(machine))
    generation.stamp(folder)
    _write(machine, folder, results, unset=_unset(machine))
    _judge(machine, folder, log)
    files.point(layout.current, _current_target(layout, folder))
    files.point(machine.comfyui.install_path, _install_target(machine))


def _unproved(machine: Machine) -> str | None:
    found = read(generation.folder_of(machine))
    waiting = [name for name, node in found.items() if node["state"] == "unproved"]
    return f"{', '.join(waiting)} could not be proved in the build" if waiting else None


def _prove(machine: Machine, log: Path) -> None:
    folder = generation.folder_of(machine)
    args = ["--cpu"] if machine.instances.cpu_only or not gpu.driver_present() else []
    results = _quick_test(machine, folder, args, _environment(machine), log).run()
    _write(machine, folder, results, unset=[])
    _judge(machine, folder, log)


def _quick_test(
    machine: Machine, folder: Path, args: list[str], env: Mapping[str, str], log: Path
) -> QuickTest:
    return QuickTest(
        python=generation.python_of(folder),
        comfyui=folder / "ComfyUI",
        scratch=Layout(machine.workspace).scratch,
        env=env,
        args=args,
        log=log,
    )


def _environment(machine: Machine) -> dict[str, str]:
    """What an instance would get, as far as this moment knows it."""
    named = {
        key: expand(value, machine.env)
        for key, value in machine.instances.env.items()
        if key not in _unset(machine)
    }
    return process.allowed_environment(os.environ) | named


def _unset(machine: Machine) -> list[str]:
    """The variables of instances.env that can't be expanded now; an image build has no secrets."""
    unset = []
    for key, value in machine.instances.env.items():
        try:
            expand(value, machine.env)
        except KeyError as error:
            unset += [key, str(error.args[0])]
    return unset


def _write(machine: Machine, folder: Path, results: dict[str, Result], unset: list[str]) -> None:
    """Store the results; what only this place lacks is `unproved`, not failed."""
    gpu_comes_later = not machine.instances.cpu_only and not gpu.driver_present()
    found = {}
    for name, result in results.items():
        state = "imported" if result.imported else "failed"
        needs_gpu = gpu_comes_later and NO_GPU.search(result.reason)
        needs_variable = any(re.search(rf"\b{variable}\b", result.reason) for variable in unset)
        if not result.imported and (needs_gpu or needs_variable):
            state = "unproved"
        found[name] = {"state": state, **asdict(result)}
    files.write_receipt(_result(folder), {"nodes": found})


def _judge(machine: Machine, folder: Path, log: Path) -> None:
    """Raises Failure for every required node that failed; the rest becomes warnings."""
    required = {node.name for node in nodes.present(machine) if not node.optional}
    failures = []
    for name, node in sorted(read(folder).items()):
        if node["state"] == "unproved":
            warn(f"custom node {name} can't be proved here, `doit up` will: {node['reason']}")
        elif node["state"] == "failed" and name in required:
            failures.append(f"custom node {name} doesn't import: {node['reason']}")
        elif node["state"] == "failed":
            warn(f"custom node {name} doesn't import: {node['reason']} (log: {log})")
    missing = sorted(required - set(read(folder)))
    failures += [f"custom node {name} was not loaded: see the log" for name in missing]
    if failures:
        raise Failure("; ".join(failures), log)


def _current_target(layout: Layout, folder: Path) -> str:
    return os.path.relpath(folder, layout.state)


def _install_target(machine: Machine) -> str:
    current = Layout(machine.workspace).current / "ComfyUI"
    return os.path.relpath(current, machine.comfyui.install_path.parent)
