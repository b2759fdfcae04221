"""Validation: every custom node is really imported, before anything is started with it."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from tasks import environment, generation, last_good, nodes
from tasks.engine.said import warn
from tasks.engine.step import Task, step
from tasks.host import files, generations, gpu, process, quick_test
from tasks.host.failure import Failure
from tasks.host.quick_test import QuickTest, Result, read, receipt_of
from tasks.spec import CustomNode, Machine, expand
from tasks.spec.layout import Layout

#: What torch and CUDA libraries say when no GPU or driver is there.
NO_GPU = re.compile(
    r"Found no NVIDIA driver|not compiled with CUDA|No CUDA GPUs|CUDA (is not|unavailable|driver)"
    r"|cuda.*not available|libcuda|libnvidia|no kernel image|CUDA error",
    re.I,
)


def tasks(machine: Machine) -> Iterator[Task]:
    yield step(
        "validation",
        "Every custom node imports; then the generation is the current one",
        check=partial(unvalidated, machine),
        action=partial(validate, machine),
        foresee=partial(_foresee, machine),
        log=machine.layout.log("validation"),
        after=["generation"],
    )


def unproved(machine: Machine, result: Result) -> bool:
    """Whether a failure may be due to what only run time has: a GPU, a variable, a .env."""
    if result.imported:
        return False
    gpu_comes_later = not machine.instances.cpu_only and not gpu.driver_present()
    if gpu_comes_later and NO_GPU.search(result.reason):
        return True
    _, unset = _variables(machine)
    later = [*unset, *_to_come(machine)]
    return any(re.search(rf"(?<!\w){re.escape(name)}(?!\w)", result.reason) for name in later)


def fatal(folder: Path) -> list[str]:
    """The nodes that ComfyUI can't be started with."""
    return sorted(name for name, result in read(folder).items() if result.fatal)


def unvalidated(machine: Machine) -> str | None:
    layout = machine.layout
    folder = generation.folder_of(machine)
    if reason := _unproved(machine, folder):
        return reason
    chosen = last_good.folder_of(machine)
    if files.link_target(layout.current) != _current_target(layout, chosen):
        return f"{chosen.name} isn't the current generation"
    if files.link_target(machine.comfyui.install_path) != _install_target(machine):
        return f"{machine.comfyui.install_path} doesn't point at ComfyUI"
    return None


def _unproved(machine: Machine, folder: Path) -> str | None:
    """Why the nodes are to be imported, and not only the links to be set."""
    results = read(folder)
    if not receipt_of(folder).exists():
        return f"{folder.name} was not validated"
    for node in nodes.present(machine):
        result = results.get(node.name)
        if result and (result.imported or unproved(machine, result)):
            continue
        if not _is_final(folder, node):
            return f"{node.name} doesn't import"
        reason = result.reason if result else "it has no code that ComfyUI loads"
        warn(f"custom node {node.name} doesn't import: {reason}")
    return None


def _is_final(folder: Path, node: CustomNode) -> bool:
    """Whether an optional node that failed would fail again: same code, same packages.

    What only run time has may have come since, and the code of a local folder may be mended.
    """
    unsure = quick_test.unproved(folder)
    return node.optional and not node.path and node.name not in unsure


def _foresee(machine: Machine, log: Path) -> list[str]:
    layout = machine.layout
    files.point(layout.kept(layout.state / "current"), last_good.folder_of(machine))
    return []


def validate(machine: Machine, log: Path) -> None:
    layout = machine.layout
    folder = generation.folder_of(machine)
    if _unproved(machine, folder):
        _prove(machine, folder, log)
    files.point(layout.current, _current_target(layout, last_good.folder_of(machine)))
    files.point(machine.comfyui.install_path, _install_target(machine))


def _prove(machine: Machine, folder: Path, log: Path) -> None:
    """Import every node, and note what became of it. Raises Failure for a required one."""
    results = _quick_test(machine, folder, ["--cpu"], log).run()
    needs_gpu = any(NO_GPU.search(result.reason) for result in results.values())
    if needs_gpu and gpu.driver_present() and not machine.instances.cpu_only:
        results = _quick_test(machine, folder, [], log).run()
    results = {name: redacted(machine, result) for name, result in results.items()}
    # Nodes may install packages while they are imported.
    home = environment.folder_of(machine)
    for line in environment.hold(machine, home, "a custom node, while it was imported,", log):
        warn(line)
    environment.record(home)
    generations.stamp(folder)
    unsure = sorted(name for name, result in results.items() if unproved(machine, result))
    files.write_receipt(
        receipt_of(folder),
        {"nodes": {name: asdict(result) for name, result in results.items()}, "unproved": unsure},
    )
    _judge(machine, results, log)


def _quick_test(machine: Machine, folder: Path, args: list[str], log: Path) -> QuickTest:
    named, _ = _variables(machine)
    scratch = machine.layout.scratch / "validation"
    files.remove(scratch)
    return QuickTest(
        python=generation.python_of(folder),
        comfyui=folder / "ComfyUI",
        scratch=scratch,
        env=process.allowed_environment(os.environ) | named,
        args=args,
        log=log,
        database=generation.code_of(machine).knows("--database-url"),
    )


def redacted(machine: Machine, result: Result) -> Result:
    """A node may raise with a secret in its message; it goes no further."""
    reason = result.reason
    for key, written in _named(machine):
        with contextlib.suppress(KeyError):
            value = expand(written, machine.env)
            if value and "${" in written:
                reason = reason.replace(value, f"${{{key}}}")
    return replace(result, reason=reason)


def _variables(machine: Machine) -> tuple[dict[str, str], list[str]]:
    """The variables of run time as far as this moment knows them, and the names without a value.

    An image build has no secrets; a node that wants one then is proved where it is set.
    """
    known, unset = {}, []
    for key, written in _named(machine):
        try:
            known[key] = expand(written, machine.env)
        except KeyError as error:
            unset += [key, str(error.args[0])]
    return known, unset


def _named(machine: Machine) -> Iterator[tuple[str, str]]:
    """The nodes' env, which stands in no file during a build, and instances.env, which wins."""
    for node in machine.custom_nodes:
        yield from node.env.items()
    yield from machine.instances.env.items()


def _to_come(machine: Machine) -> Iterator[str]:
    """What a node names that misses its .env, which a build doesn't write: file and variables."""
    for node in machine.custom_nodes:
        file = machine.layout.dotenv(node.name)
        if node.env and not file.exists():
            yield from (*node.env, ".env", file.name)


def _judge(machine: Machine, results: dict[str, Result], log: Path) -> None:
    """Raises Failure for every required node that failed; the rest becomes warnings."""
    required = {node.name for node in nodes.present(machine) if not node.optional}
    failures = [
        f"custom node {name} was not loaded: it has no code that ComfyUI loads"
        for name in sorted(required - set(results))
    ]
    for name, result in sorted(results.items()):
        if result.imported:
            continue
        kind = "ComfyUI's own" if name.startswith("comfy_extras/") else "custom node"
        if unproved(machine, result):
            warn(f"{kind} {name} can't be proved here, `doit up` will: {result.reason}")
        elif name in required:
            failures.append(f"custom node {name} doesn't import: {result.reason}")
        else:
            warn(f"{kind} {name} doesn't import: {result.reason} (log: {log})")
    if failures:
        raise Failure("; ".join(failures), log)


def _current_target(layout: Layout, folder: Path) -> str:
    return os.path.relpath(folder, layout.state)


def _install_target(machine: Machine) -> str:
    current = machine.layout.current / "ComfyUI"
    return os.path.relpath(current, machine.comfyui.install_path.parent)
