"""A generation: ComfyUI with its custom nodes and environment, assembled and validated.

Nothing that runs is ever changed: every difference makes a new folder, and instances move over.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from .. import nodes
from ..engine import space
from ..engine.run import Run
from ..engine.step import Task, group, step
from ..environment import stage as environment
from ..environment.target import script_versions
from ..host.comfyui import source_facts
from ..host.comfyui.source_facts import Code
from ..host.generations import drift, manifest
from ..host.generations.kept_generations import in_use
from ..host.repositories import git
from ..host.repositories.sources import Source
from ..host.storage import digest_folders, disk
from ..host.system import files, process
from ..host.system.failure import Failure
from ..host.system.program_files import PROGRAM
from ..source import arguments
from ..source import stage as source
from ..spec import CustomNode
from ..spec.layout import Layout
from . import carry_over

DOTENV = ".env"


def tasks(run: Run) -> Iterator[Task]:
    layout = run.layout
    yield group("generation", "ComfyUI with nodes and environment, assembled, validated")
    yield step(
        run,
        "generation:assemble",
        "Assemble ComfyUI and the nodes, carry over what they wrote",
        check=partial(_why_outdated, run),
        action=partial(_make, run),
        preview=partial(_preview, run),
        after=["environment"],
        garbage=partial(_removable, layout),
    )


def folder_of(run: Run) -> Path:
    """The generation that the last `generation:assemble` made or chose.

    Raises Failure without one.
    """
    layout = run.layout
    return layout.read_path(
        digest_folders.pointed(layout.read_path(_pointer(layout)), layout.generations)
    )


def python_of(folder: Path) -> Path:
    return folder / "environment" / "bin" / "python"


def nodes_of(folder: Path) -> set[str]:
    """The custom nodes that a generation was made with."""
    return set(map(str, digest_folders.read(folder, nodes=list).get("nodes", ())))


def code_of(run: Run) -> Code:
    """The facts about the code of its ComfyUI."""
    try:
        found = source_facts.of(digest_folders.read(folder_of(run)).get("code"))
    except Failure:
        found = Code()
    # The receipt of an older comfy-machine's generation doesn't have them.
    return found if found.whole else source.code_of(run)


def _pointer(layout: Layout) -> Path:
    return layout.receipts / "generation.json"


def _removable(layout: Layout) -> list[Path]:
    keep = in_use(layout)
    return [
        path for path in digest_folders.list_folders(layout.generations) if path.name not in keep
    ]


@dataclass(frozen=True)
class Target:
    """What a generation is assembled from, worked out once and handed down."""

    comfyui: Source
    commit: str | None
    """ComfyUI's."""
    nodes: Mapping[str, CustomNode]
    """The present ones, by name."""
    versions: Mapping[str, object]
    numbers: Mapping[str, str]
    """Node of the registry → its version there."""
    environment: Path

    @property
    def refs(self) -> dict[str, str]:
        """What machine.yaml asks for, which tells people more than a commit."""
        refs = {self.comfyui.name: self.comfyui.ref}
        refs |= {name: node.ref or self.numbers.get(name) for name, node in self.nodes.items()}
        return {name: ref for name, ref in refs.items() if ref}

    @cached_property
    def digest(self) -> str:
        return files.digest(
            {
                "comfyui": self.commit,
                "nodes": self.versions,
                "environment": self.environment.name,
            }
        )


def _target_of(run: Run) -> Target:
    """Raises Failure without an environment."""
    comfyui, present = source.source_of(run), nodes.present_nodes(run)
    return Target(
        comfyui,
        comfyui.read().get("commit"),
        {node.name: node for node in present},
        {node.name: _version(run, node) for node in present},
        {node.name: nodes.source_of(run, node).shown for node in present if node.id},
        environment.folder_of(run),
    )


def _version(run: Run, node: CustomNode) -> object:
    if node.path:
        return str(node.path)
    # env: adds a link; its content is in a file outside.
    linked = [DOTENV] if node.env else []
    return [*nodes.source_of(run, node).version(), *linked]


def _why_outdated(run: Run) -> str | None:
    layout = run.layout
    for line in drift.lines(layout.generation) if layout.overlay else ():
        run.warn(line)
    folder, target = folder_of(run), _target_of(run)
    if files.read_receipt(layout.read_path(_pointer(layout))).get("digest") != target.digest:
        return "its parts changed"
    code = code_of(run)
    _warn_of_flags(run, code)
    if reason := arguments.reason_to_check(run, code, target.commit):
        return reason
    receipt = digest_folders.read(folder)
    if not receipt:
        return f"{folder.name} isn't complete"
    differ = manifest.differing(folder)
    if reason := manifest.damage(folder, receipt, differ):
        return reason
    for top, names in manifest.edited(folder, differ).items():
        run.warn(
            f"{', '.join(names)} in {top} was edited by hand; the next change that needs a new "
            "generation will stop there"
        )
    return None


def _choose(run: Run, target: Target) -> tuple[Path, bool]:
    """The folder for this target, and whether it is complete.

    Raises Failure if edits would be lost.
    """
    layout = run.layout
    previous = layout.generation
    folder, complete = digest_folders.choose(
        layout.generations, target.digest, partial(_damage, previous), in_use(layout)
    )
    found = _edited(run, previous) if previous != folder else {}
    for top in [top for top in found if git.unreadable(top)]:
        # Edits can only be dropped while git still has the original files.
        _keep_aside(run, top, found.pop(top))
    if found:
        drop = " && ".join(
            f"git -C {top} checkout -- {' '.join(names)}" for top, names in found.items()
        )
        listed = ", ".join(name for names in found.values() for name in names)
        raise Failure(f"edited by hand: {listed}; keep the edits in a fork, or drop them: {drop}")
    return folder, complete


def _damage(current: Path, folder: Path, receipt: dict[str, Any]) -> str | None:
    """What is wrong with a generation that is to be used again: a tracked file that differs, too,
    where it isn't the current one, which a person may have edited."""
    if reason := manifest.damage(folder, receipt):
        return reason
    try:
        found = manifest.edited(folder)
    except Failure as failure:
        return str(failure)
    changed = [f"{names[0]} in {top} changed" for top, names in found.items()]
    return changed[0] if changed and folder != current else None


def _edited(run: Run, folder: Path) -> dict[Path, list[str]]:
    """Checkout → its files that were edited by hand; none where that can't be known any more."""
    try:
        return manifest.edited(folder)
    except Failure as failure:
        run.warn(f"unknown whether a file in {folder} was edited by hand: {failure}")
        return {}


def _keep_aside(run: Run, top: Path, names: Iterable[str]) -> None:
    """Copy files that differ to `left/`; the generation of which they are stays as it is."""
    layout = run.layout
    place = layout.write_path(layout.left / top.relative_to(layout.generation))
    for name in names:
        files.copy_file(top / name, place / name)
        run.warn(f"{name} in {top} differs, and its repository is damaged: kept as {place / name}")


def _make(run: Run, log: Path) -> None:
    layout, target = run.layout, _target_of(run)
    folder, complete = _choose(run, target)
    sizes = {} if complete else disk.last_measured(layout).generations
    with space.reserve(run, "the generation", folder, sizes.get(layout.generation.name, 0)):
        code = _read_code(run, target, folder, log)
        if not complete:
            _assemble(run, target, folder, code)
        elif folder != layout.generation:
            _carry_over(run, target, folder)
        receipt = digest_folders.read(folder)
        if receipt.get("code") != code.receipt():
            digest_folders.finish(folder, receipt | {"code": code.receipt()})
    digest_folders.point(_pointer(layout), folder, target.digest)


def _assemble(run: Run, target: Target, folder: Path, code: Code) -> None:
    """Fill a new generation with its parts, and with what the current one wrote."""
    digest_folders.remove(folder)
    ran = _scripts_that_ran(run)
    contents = _fill(run, target, folder, ran)
    # An incomplete generation may have the current one's name: its receipt was lost.
    if folder != run.layout.generation and (old := _carry_over(run, target, folder)):
        _carry_code(run, folder, old, ran)
    digest_folders.finish(
        folder, {"digest": target.digest, "scripts": ran, "code": code.receipt(), **contents}
    )


def _carry_over(run: Run, target: Target, folder: Path) -> dict[str, Any]:
    """Carry over what was written into the current generation; return its receipt, {} without."""
    layout = run.layout
    previous, old = layout.generation, _current_receipt(layout)
    if not old or not (previous / "ComfyUI").is_dir():
        return {}
    for line in carry_over.carry(
        previous / "ComfyUI", folder / "ComfyUI", set(old["nodes"]), set(target.nodes), layout.left
    ):
        run.warn(line)
    return old


def _carry_code(run: Run, folder: Path, old: dict[str, Any], ran: Iterable[str]) -> None:
    """Carry over compiled files of unchanged repositories, and tracked files that scripts wrote."""
    previous, heads = run.layout.generation, old["heads"]
    unchanged = (place for place, commit in heads.items() if git.head(folder / place) == commit)
    carry_over.carry_bytecode(previous, folder, unchanged)
    for line in carry_over.carry_rewritten(
        previous, folder, manifest.rewritten(previous), heads, [_place(name) for name in ran],
        run.layout.left,
    ):  # fmt: skip
        run.tell(line)


def _preview(run: Run, log: Path) -> list[str]:
    layout, target = run.layout, _target_of(run)
    folder, complete = _choose(run, target)
    if not complete:
        previewed = layout.write_path(folder)
        previewed.mkdir(parents=True)
        code = source.code_of(run).receipt()
        digest_folders.finish(
            previewed, {"digest": target.digest, "scripts": _scripts_that_ran(run), "code": code}
        )
    digest_folders.point(layout.write_path(_pointer(layout)), folder, target.digest)
    removed = sorted(set(_current_receipt(layout).get("nodes", ())) - set(target.nodes))
    return [f"remove custom node {name}" for name in removed]


def _read_code(run: Run, target: Target, folder: Path, log: Path) -> Code:
    """The facts about ComfyUI's code. Asks with the environment's Python if doit's own couldn't,
    as when a future ComfyUI loads a package first. Raises Failure for bad arguments."""
    code = source.code_of(run)
    if not code.whole:
        python = target.environment / "bin" / "python"
        pinned = source.pinned(run, code, python, log)
        env = process.allowed_environment(os.environ)
        known = source_facts.of(digest_folders.read(folder).get("code"))
        code = known if known.whole else source_facts.ask(python, pinned.checkout, env, log, code)
        arguments.check_arguments(run, replace(pinned, code=code))
    _warn_of_flags(run, code)
    return code


def _warn_of_flags(run: Run, code: Code) -> None:
    if code.flags is None:
        run.warn(
            "unknown which flags this ComfyUI has (main.py --help doesn't say): "
            "instances.args are passed on unchecked"
        )
    elif run.machine.instances.assets and "--enable-assets" not in code.flags:
        run.warn("instances.assets has no effect: this ComfyUI has no --enable-assets")


def _current_receipt(layout: Layout) -> dict[str, Any]:
    current = layout.generation
    return digest_folders.read(current, heads=dict, links=dict, nodes=list, scripts=dict)


def _scripts_that_ran(run: Run) -> dict[str, str]:
    """The scripts that ran in the current generation and whose nodes' folders are copied as they
    are. A damaged folder is copied from its source, and its script runs again.
    """
    versions = script_versions(run)
    previous, old = run.layout.generation, _current_receipt(run.layout)
    return {
        name: version
        for name, version in old.get("scripts", {}).items()
        if versions.get(name) == version
        and manifest.intact(previous, old, _place(name))
        and (_place(name) not in old["heads"] or not git.unreadable(previous / _place(name)))
    }


def _place(name: str) -> str:
    return f"ComfyUI/custom_nodes/{name}"


def _fill(run: Run, target: Target, folder: Path, ran: Collection[str]) -> dict[str, Any]:
    """Fill `folder`; return the entries of its receipt."""
    checkout = target.comfyui.checkout(str(target.commit))
    _copy_source(checkout, folder / "ComfyUI")
    heads = {"ComfyUI": git.head(checkout)}
    links = {
        "environment": os.path.relpath(target.environment, folder),
        "ComfyUI/models": os.path.relpath(run.layout.models, folder / "ComfyUI"),
    }
    files.remove(folder / "ComfyUI" / "models")
    (folder / "ComfyUI" / "custom_nodes").mkdir(exist_ok=True)
    previous = run.layout.generation
    for name, node in target.nodes.items():
        place = _place(name)
        files.remove(folder / place)
        if node.path:
            links[place] = str(node.path)
            continue
        if name in ran:
            carry_over.carry_whole(previous / place, folder / place, previous)
        else:
            _copy_source(nodes.folder_of(run, node), folder / place)
        heads[place] = git.head(folder / place)
        if node.env:
            _ignore_dotenv(folder / place / DOTENV, node)
            file = Layout(run.machine.workspace).dotenv(name)
            links[f"{place}/{DOTENV}"] = os.path.relpath(file, folder / place)
    for place, destination in links.items():
        files.point(folder / place, destination)
    return {"heads": heads, "links": links, "nodes": list(target.nodes), "refs": target.refs}


def _copy_source(checkout: Path, place: Path) -> None:
    """Copy a checkout. Raises Failure for a damaged one, whose copies would be damaged too."""
    if reason := git.damage(checkout):
        raise Failure(
            f"{checkout} is damaged or was edited ({reason}): {PROGRAM} repair removes it, and "
            f"{PROGRAM} fetches it again"
        )
    files.copy_tree(checkout, place)


def _ignore_dotenv(link: Path, node: CustomNode) -> None:
    """Make git ignore a node's `.env`. Raises Failure if the repository has its own."""
    if os.path.lexists(link):
        raise Failure(
            f"the repository of custom node {node.name} has its own {DOTENV}, which env would "
            f"replace: remove env, or use a fork without that file"
        )
    if f"/{DOTENV}" not in git.ignored(link.parent):
        git.ignore(link.parent, f"/{DOTENV}")
