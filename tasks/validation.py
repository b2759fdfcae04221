"""Validation: ComfyUI imports every custom node before an instance starts with it."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from . import nodes, workflows
from .engine.run import Run
from .engine.step import Task, step
from .environment import replaced_packages, verification
from .environment import stage as environment
from .generation import last_good
from .generation import stage as generation
from .generation.stage import DOTENV
from .host.comfyui import load_result, remedies
from .host.comfyui.load_result import Outcome, Result
from .host.comfyui.quick_test import Proof, Proved
from .host.generations import drift, manifest, reported_changes
from .host.python import constraints, environments
from .host.storage import access, trees
from .host.system import files, gpu, process
from .host.system.failure import Failure
from .host.system.program_files import PROGRAM
from .spec import CustomNode, expand
from .spec.layout import Layout

#: Modules that use a GPU: an exception that passes through one may be due to a missing GPU.
GPU_MODULES = re.compile(r"(torch\.cuda|triton|cupy|cupy_backends|pycuda|pynvml|numba\.cuda)(\.|$)")
#: Exceptions that are never due to a missing GPU, even if the node asked for one.
NEVER_DUE_TO_GPU = frozenset(
    {"ImportError", "ModuleNotFoundError", "SyntaxError", "NameError", "AttributeError"}
)


def tasks(run: Run) -> Iterator[Task]:
    yield step(
        run,
        "validation",
        "Every custom node imports; then the generation becomes the current one",
        check=partial(reason_to_validate, run),
        action=partial(validate, run),
        preview=partial(_preview, run),
        after=["generation"],
    )


def may_pass_later(run: Run, result: Result) -> bool:
    """Whether a failed node may import at run time, with a GPU, a variable or a .env."""
    if not result.failed:
        return False
    gpu_comes_later = not run.machine.instances.cpu_only and not gpu.driver_present()
    asked = not _missing_in_build(run).isdisjoint(result.asked)
    return asked or (gpu_comes_later and _may_need_gpu(result))


def _may_need_gpu(result: Result) -> bool:
    error = result.error
    if error is None:
        return "gpu" in result.asked
    if any(GPU_MODULES.match(module) for module in error.modules):
        return True
    if error.library and remedies.DRIVER.match(error.library):
        return True
    return "gpu" in result.asked and error.type not in NEVER_DUE_TO_GPU


def fatal_nodes(folder: Path) -> list[str]:
    """The nodes that keep ComfyUI from starting."""
    return sorted(name for name, result in load_result.read(folder).items() if result.fatal)


def reason_to_validate(run: Run) -> str | None:
    """Why validation isn't up to date; None: it is. Raises Failure without a generation."""
    layout = run.layout
    folder = generation.folder_of(run)
    if reason := _reason_to_import(run, folder):
        return reason
    if lacks := workflows.lacking_classes(run, folder):
        return lacks[0]
    chosen = last_good.folder_of(run)
    if files.link_target(layout.current) != _current_target(layout, chosen):
        return f"{chosen.name} isn't the current generation"
    if files.link_target(run.machine.comfyui.install_path) != _install_target(run):
        return f"{run.machine.comfyui.install_path} doesn't point at ComfyUI"
    return None


def _reason_to_import(run: Run, folder: Path) -> str | None:
    """Why the nodes must be imported again; None: at most links are missing."""
    results = load_result.read(folder)
    if not load_result.receipt_of(folder).exists():
        return f"{folder.name} was not validated"
    if run.machine.workflows and not load_result.asked_for_catalogue(folder):
        return f"the node classes of {folder.name} were not recorded"
    for node in nodes.present_nodes(run):
        result = results.get(node.name)
        if result is None or not result.failed or may_pass_later(run, result):
            continue
        if not _is_final(folder, node):
            return f"{node.name} {result}"
        run.warn(f"custom node {node.name} {result}")
    return None


def _is_final(folder: Path, node: CustomNode) -> bool:
    """Whether an optional node that failed would fail again, with the same code and packages.

    A local folder's code may have changed; what only run time has may exist now.
    """
    unsure = load_result.unproved(folder)
    return node.optional and not node.path and node.name not in unsure


def _preview(run: Run, log: Path) -> list[str]:
    layout = run.layout
    files.point(layout.write_path(layout.state / "current"), last_good.folder_of(run))
    return []


def validate(run: Run, log: Path) -> None:
    """Import the nodes if necessary, then make the generation the current one. Raises Failure, also
    when workflows lack node classes."""
    layout = run.layout
    folder = generation.folder_of(run)
    if _reason_to_import(run, folder):
        _import_nodes(run, folder, log)
    if lacks := workflows.lacking_classes(run, folder):
        advice = (
            "bring the custom node, or the ComfyUI, that has it; or set optional: true for the "
            "workflow"
        )
        raise Failure("\n    ".join([*lacks, advice]), log)
    files.point(layout.current, _current_target(layout, last_good.folder_of(run)), access.ADVICE)
    files.point(run.machine.comfyui.install_path, _install_target(run))


def _import_nodes(run: Run, folder: Path, log: Path) -> None:
    """Import every node and record the results. Raises Failure if a required one fails."""
    home = environment.folder_of(run)
    watch, by_hand = manifest.watch(folder), environments.additions(home)
    since = trees.now(home)
    try:
        proved = _quick_test(run, folder, ["--cpu"], log).run()
        if _needs_gpu(proved) and gpu.driver_present() and not run.machine.instances.cpu_only:
            proved = _quick_test(run, folder, [], log).run()
    except Failure as failure:
        raise Failure(f"{failure}{_damage(folder)}", failure.log) from failure
    finally:
        watch.end()
    results = {name: mask_secrets(run, result) for name, result in proved.results.items()}
    results = replaced_packages.put_back(run, folder, results, log, since)
    own = reported_changes.read(folder)
    environment.record(home, besides=by_hand.keys() - own.packages)
    for line in drift.by_processes(folder, own.since(watch.own)):
        run.warn(line)
    _record_hangs(run, results)
    unsure = [name for name, result in results.items() if may_pass_later(run, result)]
    asked = bool(run.machine.workflows)
    load_result.write(folder, results, unsure, proved.catalogue, asked=asked)
    _report_failures(run, folder, results, log)


def _needs_gpu(proved: Proved) -> bool:
    return any(result.failed and _may_need_gpu(result) for result in proved.results.values())


def _damage(folder: Path) -> str:
    """Damage that may be why, where a quick look finds some."""
    damage = verification.quick_look(folder)
    return f"; {damage}: {PROGRAM} repair" if damage else ""


def _quick_test(run: Run, folder: Path, args: list[str], log: Path) -> Proof:
    named, _ = _variables(run)
    scratch = run.layout.scratch / "validation"
    files.remove(scratch)
    return Proof(
        python=generation.python_of(folder),
        comfyui=folder / "ComfyUI",
        scratch=scratch,
        env=process.allowed_environment(os.environ)
        | constraints.within(folder / "environment", named),
        args=args,
        log=log,
        secrets=_secrets(run).values(),
        timeout=run.machine.comfyui.proof_timeout,
        changes=reported_changes.file_of(folder),
        database=generation.code_of(run).knows("--database-url"),
        later=_missing_in_build(run),
        describe=bool(run.machine.workflows),
        declared=[node.name for node in nodes.present_nodes(run)],
        on_progress=partial(run.progress, "validation"),
        excluded=_known_hangs(run),
    )


def _hangs_file(run: Run) -> Path:
    return run.layout.receipts / "hangs.json"


def _known_hangs(run: Run) -> dict[str, Result]:
    recorded = files.read_receipt(_hangs_file(run), nodes=dict).get("nodes", {})
    if run.force:
        return {}
    known = {}
    for node in run.machine.custom_nodes:
        # A damaged record counts as none: import the node again.
        with contextlib.suppress(AttributeError, LookupError, TypeError, ValueError):
            if recorded[node.name]["of"] == _import_inputs(run, node):
                known[node.name] = Result(Outcome.HUNG, float(recorded[node.name]["seconds"]))
    return known


def _record_hangs(run: Run, results: Mapping[str, Result]) -> None:
    declared = {node.name: node for node in run.machine.custom_nodes}
    found = {
        name: {"of": _import_inputs(run, declared[name]), "seconds": result.seconds}
        for name, result in results.items()
        if result.outcome is Outcome.HUNG and name in declared and not declared[name].path
    }
    if found or _hangs_file(run).exists():
        files.write_receipt(_hangs_file(run), {"nodes": found})


def _import_inputs(run: Run, node: CustomNode) -> list[str]:
    commit = nodes.source_of(run, node).read().get("commit")
    return [str(commit), environment.folder_of(run).name]


def mask_secrets(run: Run, result: Result) -> Result:
    """Replace secrets in a node's error message by the names of their variables."""
    error = result.error
    if error is None:
        return result
    for key, value in _secrets(run).items():
        error = error.masked(value, f"${{{key}}}")
    return replace(result, error=error)


def _variables(run: Run) -> tuple[dict[str, str], list[str]]:
    """The variables of run time that have a value now, and the names of those without.

    An image build has no secrets; a node that needs one is validated where it is set.
    """
    values, unset = {}, []
    for key, written in _env_fields(run):
        try:
            values[key] = expand(written, run.machine.env)
        except KeyError as error:
            unset += [key, str(error.args[0])]
    return values, unset


def _secrets(run: Run) -> dict[str, str]:
    """The variables whose values come from the environment, without empty ones."""
    values, _ = _variables(run)
    written = dict(_env_fields(run))
    return {key: value for key, value in values.items() if value and "${" in written[key]}


def _env_fields(run: Run) -> Iterator[tuple[str, str]]:
    """The nodes' env, which is in no file during a build, then instances.env, which wins."""
    for node in run.machine.custom_nodes:
        yield from node.env.items()
    yield from run.machine.instances.env.items()


def _missing_in_build(run: Run) -> frozenset[str]:
    """What only run time has: variables that have no value now, and `.env` files."""
    _, unset = _variables(run)
    dotenv = run.layout.dotenv
    waits = any(node.env and not dotenv(node.name).exists() for node in run.machine.custom_nodes)
    return frozenset([*unset, *([DOTENV] if waits else [])])


def _report_failures(run: Run, folder: Path, results: Mapping[str, Result], log: Path) -> None:
    """Raises Failure if a required node failed; other failures become warnings."""
    required = {node.name for node in nodes.present_nodes(run) if not node.optional}
    failures = []
    for name, result in sorted(results.items()):
        if not result.failed:
            continue
        kind = "ComfyUI's own" if load_result.is_own(name) else "custom node"
        if may_pass_later(run, result):
            run.warn(f"{kind} {name} can't be validated here, only by `{PROGRAM} up`: it {result}")
        elif name in required:
            failures.append(f"custom node {name} {result}{_missing_files(run, name)}")
        else:
            run.warn(f"{kind} {name} {result}{_missing_files(run, name)} (log: {log})")
    unknown = sorted(name for name, result in results.items() if result.outcome is Outcome.UNKNOWN)
    if unknown:
        run.warn(
            f"unknown whether {', '.join(unknown)} can be loaded: this ComfyUI has no "
            "nodes.load_custom_node to report it; running instances show it by their node classes"
        )
    if failures:
        lines = "\n    ".join(failures)
        which = "it" if len(failures) == 1 else "these"
        advice = f"to continue without {which}, set optional: true"
        raise Failure(f"{lines}\n    {advice}{_damage(folder)}", log)


def _missing_files(run: Run, name: str) -> str:
    """The files that a failed node's checkout lacks, which may be the cause."""
    for node in run.machine.custom_nodes:
        large = nodes.source_of(run, node).large
        if node.name == name and large.left:
            return f"; {large}; {large.mend}"
    return ""


def _current_target(layout: Layout, folder: Path) -> str:
    return os.path.relpath(folder, layout.state)


def _install_target(run: Run) -> str:
    current = run.layout.current / "ComfyUI"
    return os.path.relpath(current, run.machine.comfyui.install_path.parent)
