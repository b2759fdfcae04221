"""Workflows: the node classes and the models that those of machine.yaml need are here."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import chain
from pathlib import Path

from . import nodes
from .engine.run import Run
from .engine.step import Task, step
from .generation import stage as generation
from .host.comfyui import load_result, page_classes
from .host.comfyui.load_report import Catalogue
from .host.comfyui.load_result import Result
from .host.system.failure import Failure
from .spec import CustomNode, WorkflowFile, workflow_file
from .spec.node_uses import NodeUse
from .spec.workflow_needs import Needs

NOT_HERE = "is in no folder of models"


def tasks(run: Run) -> Iterator[Task]:
    yield step(
        run,
        "workflows",
        "The models that workflows name are here",
        check=partial(_warn_of_models, run),
        action=lambda log: None,
        after=["validation", "models"],
    )


def needs(run: Run) -> Iterator[tuple[WorkflowFile, Needs]]:
    """What each workflow needs. A file that is gone since machine.yaml was read needs nothing."""
    for workflow in run.machine.workflows:
        with contextlib.suppress(ValueError):
            yield workflow, workflow_file.needs(workflow.path)


def lacking_classes(run: Run, folder: Path) -> list[str]:
    """Why workflows that aren't optional can't run on a generation: a line for each node class.

    Warns of the others, and of what isn't known.
    """
    catalogue = load_result.catalogue(folder) if run.machine.workflows else None
    if catalogue is None:
        return []
    required: list[str] = []
    unproved = sorted(load_result.unproved(folder))
    for workflow, needed in needs(run):
        for kind, use in needed.classes.items():
            if kind not in catalogue.choices:
                what = f"{_named(workflow, use)}, which isn't here{_owner(run, folder, use)}"
                if workflow.optional:
                    run.warn(what)
                elif unproved:
                    run.warn(f"{what}; perhaps of {', '.join(unproved)}, not validated here")
                else:
                    required.append(what)
        for use in _unsure(needed, catalogue, folder):
            run.warn(
                f"{_named(workflow, use)}, which isn't here; whether only ComfyUI's page needs it "
                "isn't known"
            )
    return required


def _unsure(needed: Needs, catalogue: Catalogue, folder: Path) -> Iterator[NodeUse]:
    """The nodes whose class neither an instance has nor JavaScript that the page loads names."""
    missing = {kind: use for kind, use in needed.unsure.items() if kind not in catalogue.choices}
    if missing:
        found = page_classes.named(folder / "ComfyUI", catalogue.web, missing)
        yield from (use for kind, use in missing.items() if kind not in found)


def _named(workflow: WorkflowFile, use: NodeUse) -> str:
    return f"workflow {workflow.name}: node {use.id} is of class {use.kind}"


def _owner(run: Run, folder: Path, use: NodeUse) -> str:
    """The custom node that would have the class, and what is wrong with it; empty: not known."""
    results = load_result.read(folder)
    wrong = {name: str(each) for name, each in results.items() if each.failed}
    wrong |= {name: f"is left out: {why}" for name, why in nodes.left_out(run).items()}
    for node in run.machine.custom_nodes:
        if node.name in wrong and _has(run, folder, node, use):
            return f": custom node {node.name} {wrong[node.name]}"
    return ""


def _has(run: Run, folder: Path, node: CustomNode, use: NodeUse) -> bool:
    """Whether the workflow, the node's metadata or an earlier generation says that it has it."""
    if use.repository and node.url:
        tail = node.url.removesuffix("/").removesuffix(".git").casefold()
        if tail.endswith(f"/{use.repository.casefold()}"):
            return True
    if use.registry_id and use.registry_id == _registry_id(folder, node):
        return True
    return any(use.kind in (each.classes or ()) for each in _earlier(run, node))


def _registry_id(folder: Path, node: CustomNode) -> str | None:
    """What its pyproject.toml calls it, which is its id in the registry."""
    file = folder / "ComfyUI" / "custom_nodes" / node.name / "pyproject.toml"
    with contextlib.suppress(OSError, ValueError):
        found = re.search(r"""^name\s*=\s*["']([^"']+)["']""", file.read_text("utf-8"), re.M)
        return found[1] if found else None
    return None


def _earlier(run: Run, node: CustomNode) -> Iterator[Result]:
    """Its results on the generations that are kept."""
    for receipt in run.layout.generations.glob("*.validation.json"):
        other = receipt.with_name(receipt.name.removesuffix(".validation.json"))
        with contextlib.suppress(KeyError):
            yield load_result.read(other)[node.name]


def _warn_of_models(run: Run) -> None:
    """Warns of models that no folder of models has; what an instance lists is for health to see."""
    if not run.machine.workflows:
        return
    catalogue = _catalogue(run)
    folders = [*_folders(run)]
    declared = {file.target.partition("/")[2] for file in run.machine.models.files}
    for workflow, needed in needs(run):
        for model in needed.models:
            chosen = catalogue.choices.get(model.kind, ()) if catalogue else (model.input,)
            if not chosen or (model.input and model.input not in chosen):
                continue
            if model.name not in declared and not any((at / model.name).exists() for at in folders):
                run.warn(
                    f"workflow {workflow.name}: node {model.node} ({model.kind}) names the model "
                    f"{model.name}, which {NOT_HERE}: its jobs would fail"
                )


def _catalogue(run: Run) -> Catalogue | None:
    """None: not known, as in a plan of what isn't built yet."""
    try:
        return load_result.catalogue(generation.folder_of(run))
    except Failure:
        return None


def _folders(run: Run) -> Iterator[Path]:
    """The folders of each type of models, those of custom nodes included."""
    models = run.machine.models
    types: Mapping[str, tuple[str, ...]] = generation.code_of(run).folder_types or {}
    known = dict.fromkeys(chain.from_iterable(types.values()))
    for root in (models.folder, *(each.path for each in models.extra_roots)):
        yield from (root / name for name in known)
        with contextlib.suppress(OSError):
            yield from (at for at in root.iterdir() if at.name not in known and at.is_dir())
