"""A generation: ComfyUI with its custom nodes and environment, assembled and validated.

Nothing that runs is ever changed: every difference makes a new folder, and instances move over.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from .. import nodes
from ..engine import space
from ..engine.run import Run
from ..engine.step import Task, group, step
from ..environment import stage as environment
from ..host.comfyui import source_facts
from ..host.comfyui.source_facts import Code
from ..host.generations import drift, manifest
from ..host.generations.kept_generations import in_use
from ..host.repositories import git
from ..host.storage import digest_folders, disk
from ..host.system import files, process
from ..host.system.failure import Failure
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
        action=partial(_assemble_with_space, run),
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


def _digest(run: Run) -> str:
    return files.digest(
        {
            "comfyui": source.source_of(run).read().get("commit"),
            "nodes": {node.name: _version(run, node) for node in nodes.present_nodes(run)},
            "environment": environment.folder_of(run).name,
        }
    )


def _version(run: Run, node: CustomNode) -> object:
    if node.path:
        return str(node.path)
    # env: adds a link; its content is in a file outside.
    linked = [DOTENV] if node.env else []
    return [*nodes.source_of(run, node).version(), *linked]


def _why_outdated(run: Run) -> str | None:
    layout = run.layout
    for line in drift.lines(layout.current.resolve()) if layout.overlay else ():
        run.warn(line)
    folder = folder_of(run)
    if files.read_receipt(layout.read_path(_pointer(layout))).get("digest") != _digest(run):
        return "its parts changed"
    code = code_of(run)
    _warn_of_flags(run, code)
    if reason := arguments.reason_to_check(run, code, source.source_of(run).read().get("commit")):
        return reason
    beside = digest_folders.read(folder)
    if not beside:
        return f"{folder.name} isn't complete"
    differ = manifest.differing(folder)
    reason = manifest.damage(folder, beside, differ)
    for top, names in manifest.edited(folder, differ).items() if reason is None else ():
        run.warn(
            f"{', '.join(names)} in {top} was edited by hand; the next change that needs a new "
            "generation will stop there"
        )
    return reason


def _choose(run: Run) -> tuple[str, Path, bool]:
    """The digest, its folder, and whether that is complete. Raises Failure if edits would be
    lost."""
    layout = run.layout
    digest = _digest(run)
    previous = layout.current.resolve()
    folder, complete = digest_folders.choose(
        layout.generations, digest, manifest.damage, in_use(layout)
    )
    if previous != folder and (found := manifest.edited(previous)):
        drop = " && ".join(
            f"git -C {top} checkout -- {' '.join(names)}" for top, names in found.items()
        )
        listed = ", ".join(name for names in found.values() for name in names)
        raise Failure(f"edited by hand: {listed}; keep the edits in a fork, or drop them: {drop}")
    return digest, folder, complete


def _assemble_with_space(run: Run, log: Path) -> None:
    _, folder, complete = _choose(run)
    sizes = {} if complete else disk.last_measured(run.layout).generations
    need = sizes.get(run.layout.current.resolve().name, 0)
    with space.reserve(run, "the generation", folder, need):
        _assemble(run, log)


def _assemble(run: Run, log: Path) -> None:
    layout = run.layout
    digest, folder, complete = _choose(run)
    code = _read_code(run, folder, log)
    if not complete:
        digest_folders.remove(folder)
        receipt = _fill(run, folder) | {"code": code.receipt()}
    if folder != layout.current.resolve():
        _carry_over(run, folder, new=not complete)
    if not complete:
        digest_folders.finish(
            folder, {"digest": digest, "scripts": _scripts_that_ran(run), **receipt}
        )
    elif digest_folders.read(folder).get("code") != code.receipt():
        digest_folders.finish(folder, digest_folders.read(folder) | {"code": code.receipt()})
    digest_folders.point(_pointer(layout), folder, digest)


def _carry_over(run: Run, folder: Path, *, new: bool) -> None:
    """Carry over what was written into the current generation.

    An older generation (`new` false) gets what was written since; its tracked files stay.
    """
    layout = run.layout
    previous, old = layout.current.resolve(), _current_receipt(layout)
    if not old or not (previous / "ComfyUI").is_dir():
        return
    there = {node.name for node in nodes.present_nodes(run)}
    now, before = folder / "ComfyUI", previous / "ComfyUI"
    carry_over.carry(before, now, set(old["nodes"]), there, layout.left)
    if not new:
        return
    heads = {place: git.head(folder / place) for place in old["heads"]}
    carry_over.carry_bytecode(
        previous, folder, (p for p, c in old["heads"].items() if heads[p] == c)
    )
    for line in carry_over.carry_rewritten(
        previous, folder, manifest.rewritten(previous), old["heads"],
        [_place(name) for name in _scripts_that_ran(run)], layout.left,
    ):  # fmt: skip
        run.tell(line)


def _preview(run: Run, log: Path) -> list[str]:
    layout = run.layout
    digest, folder, complete = _choose(run)
    if not complete:
        previewed = layout.write_path(folder)
        previewed.mkdir(parents=True)
        code = source.code_of(run).receipt()
        digest_folders.finish(
            previewed, {"digest": digest, "scripts": _scripts_that_ran(run), "code": code}
        )
    digest_folders.point(layout.write_path(_pointer(layout)), folder, digest)
    there = {node.name for node in nodes.present_nodes(run)}
    gone = sorted(set(_current_receipt(layout).get("nodes", ())) - there)
    return [f"remove custom node {name}" for name in gone]


def _read_code(run: Run, folder: Path, log: Path) -> Code:
    """The facts about ComfyUI's code. Asks with the environment's Python if doit's own couldn't,
    as when a future ComfyUI loads a package first. Raises Failure for bad arguments."""
    code = source.code_of(run)
    if not code.whole:
        python = environment.folder_of(run) / "bin" / "python"
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
    current = layout.current.resolve()
    return digest_folders.read(current, heads=dict, links=dict, nodes=list, scripts=dict)


def _scripts_that_ran(run: Run) -> dict[str, str]:
    """The scripts that ran in the current generation and whose nodes' folders are copied as they
    are. A damaged folder is copied from its source, and its script runs again.
    """
    wanted = environment.script_versions(run)
    previous, old = run.layout.current.resolve(), _current_receipt(run.layout)
    return {
        name: version
        for name, version in old.get("scripts", {}).items()
        if wanted.get(name) == version and manifest.intact(previous, old, _place(name))
    }


def _place(name: str) -> str:
    return f"ComfyUI/custom_nodes/{name}"


def _fill(run: Run, folder: Path) -> dict[str, Any]:
    """Fill `folder`; return the entries of its receipt."""
    comfyui = source.source_of(run)
    checkout = comfyui.checkout(str(comfyui.read()["commit"]))
    files.copy_tree(checkout, folder / "ComfyUI")
    heads = {"ComfyUI": git.head(checkout)}
    links = {
        "environment": os.path.relpath(environment.folder_of(run), folder),
        "ComfyUI/models": os.path.relpath(run.layout.models, folder / "ComfyUI"),
    }
    files.remove(folder / "ComfyUI" / "models")
    (folder / "ComfyUI" / "custom_nodes").mkdir(exist_ok=True)
    previous, ran = run.layout.current.resolve(), _scripts_that_ran(run)
    for node in nodes.present_nodes(run):
        place = _place(node.name)
        files.remove(folder / place)
        if node.path:
            links[place] = str(node.path)
        else:
            if node.name in ran:
                carry_over.carry_whole(previous / place, folder / place, previous)
            else:
                files.copy_tree(nodes.folder_of(run, node), folder / place)
            heads[place] = git.head(folder / place)
            if node.env:
                _ignore_dotenv(folder / place / DOTENV, node)
                file = Layout(run.machine.workspace).dotenv(node.name)
                links[f"{place}/{DOTENV}"] = os.path.relpath(file, folder / place)
    for place, target in links.items():
        files.point(folder / place, target)
    names = [node.name for node in nodes.present_nodes(run)]
    return {"heads": heads, "links": links, "nodes": names}


def _ignore_dotenv(link: Path, node: CustomNode) -> None:
    """Make git ignore a node's `.env`. Raises Failure if the repository has its own."""
    if os.path.lexists(link):
        raise Failure(
            f"the repository of custom node {node.name} has its own {DOTENV}, which env would "
            f"replace: remove env, or use a fork without that file"
        )
    if f"/{DOTENV}" not in git.ignored(link.parent):
        git.ignore(link.parent, f"/{DOTENV}")
