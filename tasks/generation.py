"""A generation: ComfyUI with its custom nodes and environment, assembled, proved, then kept.

What runs is never changed: every difference makes a new folder, and instances move over.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from tasks import environment, nodes, source
from tasks.engine.step import Task, group, step
from tasks.engine.warnings import warn
from tasks.host import apps, carried, files, git, made, process
from tasks.host.failure import Failure
from tasks.spec import CustomNode, Machine
from tasks.spec.layout import Layout


def tasks(machine: Machine) -> Iterator[Task]:
    layout = Layout(machine.workspace)
    yield group("generation", "ComfyUI with nodes and environment, assembled, validated")
    yield step(
        "generation:assemble",
        "Copy ComfyUI and the nodes together, carry over what they wrote",
        check=partial(_missing, machine),
        action=partial(_assemble, machine),
        log=layout.log("generation:assemble"),
        after=["environment"],
        clean=partial(_clean, layout),
    )
    yield step(
        "generation:scripts",
        "Run the nodes' install scripts, once per commit and environment",
        check=partial(_scripts_pending, machine),
        action=partial(_run_scripts, machine),
        log=layout.log("generation:scripts"),
        after=["generation:assemble"],
    )


def folder_of(machine: Machine) -> Path:
    """The generation that the last `generation:assemble` made or chose."""
    layout = Layout(machine.workspace)
    return layout.generations / str(files.read_receipt(_pointer(layout)).get("folder"))


def python_of(folder: Path) -> Path:
    return folder / "environment" / "bin" / "python"


def in_use(layout: Layout) -> frozenset[str]:
    """The generations that are current or in which some process works."""
    return frozenset({layout.current.resolve().name, *apps.folders_in_use(layout.generations)})


def damage(folder: Path, receipt: dict[str, Any]) -> str | None:
    """What was moved or removed by hand; files that nobody tracks are no damage."""
    for place, commit in receipt["heads"].items():
        if git.head(folder / place) != commit:
            return f"{place} is at {git.head(folder / place) or 'no commit'}"
    for place, target in receipt["links"].items():
        if files.link_target(folder / place) != target:
            return f"{place} doesn't point at {target}"
    for place, stamps in files.read_receipt(_stamps(folder)).items():
        for name in stamps:
            if not os.path.lexists(folder / place / name):
                return f"{place}/{name} is missing"
    return None


def edited(folder: Path) -> list[str]:
    """Tracked files of a generation that were edited by hand, relative to its ComfyUI.

    Sizes and times come first, since this runs on every run; git is asked only where they differ.
    """
    found = []
    for place, stamps in files.read_receipt(_stamps(folder)).items():
        top = folder / place
        if any(_stamp(top / name) != stamp for name, stamp in stamps.items()):
            prefix = Path(place).relative_to("ComfyUI")
            found += [str(prefix / name) for name in git.edited(top)]
    return found


def stamp(folder: Path) -> None:
    """Take down sizes and times of tracked files, for `edited`."""
    stamps = {
        place: {
            name: _stamp(folder / place / name)
            for name in git.tracked(folder / place)
            if not (place == "ComfyUI" and name.startswith("models/"))
        }
        for place in made.read(folder)["heads"]
    }
    files.write_receipt(_stamps(folder), stamps)


def _stamps(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.files.json")


def _stamp(path: Path) -> list[int] | None:
    try:
        status = path.lstat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]


def _pointer(layout: Layout) -> Path:
    return layout.receipts / "generation.json"


def _clean(layout: Layout) -> None:
    files.remove(_pointer(layout))
    for folder in made.list_folders(layout.generations):
        if folder.name not in in_use(layout):
            made.remove(folder)


def _digest(machine: Machine) -> str:
    return files.digest(
        {
            "comfyui": source.of(machine).read().get("commit"),
            "nodes": {node.name: _version(machine, node) for node in nodes.present(machine)},
            "environment": environment.folder_of(machine).name,
        }
    )


def _version(machine: Machine, node: CustomNode) -> object:
    if node.path:
        return str(node.path)
    return [nodes.source_of(machine, node).read().get("commit"), node.recursive]


def _missing(machine: Machine) -> str | None:
    layout = Layout(machine.workspace)
    receipt = files.read_receipt(_pointer(layout))
    if receipt.get("digest") != _digest(machine):
        return "its parts changed" if receipt else "it was never made"
    folder = folder_of(machine)
    beside = made.read(folder)
    reason = damage(folder, beside) if beside else f"{folder.name} isn't whole"
    if reason is None and (names := edited(folder)):
        warn(f"edited by hand in {folder / 'ComfyUI'}, kept until something must move: "
             + ", ".join(names))  # fmt: skip
    return reason


def _assemble(machine: Machine, log: Path) -> None:
    layout = Layout(machine.workspace)
    digest = _digest(machine)
    previous = layout.current.resolve()
    folder, whole = made.choose(layout.generations, digest, damage, in_use(layout))
    if previous != folder and (names := edited(previous)):
        raise Failure(
            f"edited by hand: {', '.join(names)} in {previous / 'ComfyUI'}; keep the edits in a "
            "fork, or drop them with git checkout, then run doit again"
        )
    if not whole:
        receipt = _copy(machine, folder)
        if old := made.read(previous):
            carried.carry(
                previous / "ComfyUI",
                folder / "ComfyUI",
                set(old["nodes"]),
                {node.name for node in nodes.present(machine)},
                layout.left,
            )
        made.finish(folder, {"digest": digest, **receipt})
    files.write_receipt(_pointer(layout), {"digest": digest, "folder": folder.name})


def _copy(machine: Machine, folder: Path) -> dict[str, Any]:
    """Fill `folder` and return what its receipt will say."""
    comfyui = source.of(machine)
    checkout = comfyui.checkout(str(comfyui.read()["commit"]))
    files.copy_tree(checkout, folder / "ComfyUI")
    heads = {"ComfyUI": git.head(checkout)}
    links = {
        "environment": os.path.relpath(environment.folder_of(machine), folder),
        "ComfyUI/models": os.path.relpath(Layout(machine.workspace).models, folder / "ComfyUI"),
    }
    files.remove(folder / "ComfyUI" / "models")
    (folder / "ComfyUI" / "custom_nodes").mkdir(exist_ok=True)
    for node in nodes.present(machine):
        place = f"ComfyUI/custom_nodes/{node.name}"
        files.remove(folder / place)
        if node.path:
            links[place] = str(node.path)
        else:
            files.copy_tree(nodes.folder_of(machine, node), folder / place)
            heads[place] = git.head(folder / place)
    for place, target in links.items():
        files.point(folder / place, target)
    names = [node.name for node in nodes.present(machine)]
    return {"heads": heads, "links": links, "nodes": names}


def _scripts_pending(machine: Machine) -> str | None:
    pending = made.read(environment.folder_of(machine)).get("pending")
    return f"the scripts of {', '.join(pending)} have not run" if pending else None


def _run_scripts(machine: Machine, log: Path) -> None:
    """Run what is pending, in machine.yaml's order; a node that is done is written down at once."""
    home = environment.folder_of(machine)
    pending = list(made.read(home)["pending"])
    failures = []
    for node in environment.script_nodes(machine):
        if node.name not in pending:
            continue
        try:
            _run_script(folder_of(machine), node, log)
        except process.CommandFailed as failed:
            said = process.last_line(failed.output)
            text = f"the script of custom node {node.name} failed: {failed} ({said})"
            if not node.optional:
                failures.append(text)
                continue
            warn(f"{text}; it is optional and tried again by every run")
        else:
            pending.remove(node.name)
        environment.record(home, pending=pending)
    if failures:
        raise Failure("; ".join(failures), log)


def _run_script(folder: Path, node: CustomNode, log: Path) -> None:
    here = folder / "ComfyUI" / "custom_nodes" / node.name
    python = python_of(folder)
    env = process.allowed_environment(os.environ, installer=True) | {
        "VIRTUAL_ENV": str(python.parent.parent),
        # The names under which ComfyUI-Manager tells scripts where ComfyUI is.
        "COMFYUI_PATH": str(folder / "ComfyUI"),
        "COMFYUI_FOLDERS_BASE_PATH": str(folder / "ComfyUI"),
    }
    env["PATH"] = f"{python.parent}:{env.get('PATH', os.defpath)}"
    if (here / environment.INSTALL_SCRIPT).is_file():
        argv = [python, environment.INSTALL_SCRIPT]
        process.run(argv, env=env, cwd=here, log=log, timeout=node.script_timeout)
    if node.script:
        process.run(
            ["sh", "-c", node.script], env=env, cwd=here, log=log, timeout=node.script_timeout
        )
