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
        garbage=partial(_garbage, layout),
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
    """The generation that the last `generation:assemble` made or chose. Raises Failure if none."""
    layout = Layout(machine.workspace)
    return made.pointed(_pointer(layout), layout.generations)


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
    if not (folder / "environment").exists():
        return "its environment is gone"
    for place, stamps in files.read_receipt(_stamps(folder)).items():
        for name in stamps:
            if not os.path.lexists(folder / place / name):
                return f"{place}/{name} is missing"
    return None


def edited(folder: Path) -> dict[Path, list[str]]:
    """Tracked files of a generation that were edited by hand, by the checkout they are in.

    Sizes and times come first, since this runs on every run; git is asked only where they differ.
    """
    found = {}
    for place, stamps in files.read_receipt(_stamps(folder)).items():
        top = folder / place
        if any(_stamp(top / name) != stamp for name, stamp in stamps.items()):
            found[top] = git.edited(top)
    return {top: names for top, names in found.items() if names}


def stamp(folder: Path) -> None:
    """Take down sizes and times of tracked files, for `edited`."""
    receipt = made.read(folder)
    elsewhere = ("models/", *(f"custom_nodes/{name}/" for name in receipt["nodes"]))
    stamps = {
        place: {
            name: _stamp(folder / place / name)
            for name in git.tracked(folder / place)
            if not (place == "ComfyUI" and name.startswith(elsewhere))
        }
        for place in receipt["heads"]
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


def _garbage(layout: Layout) -> list[Path]:
    keep = in_use(layout)
    return [path for path in made.list_folders(layout.generations) if path.name not in keep]


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
    folder = folder_of(machine)
    if files.read_receipt(_pointer(layout)).get("digest") != _digest(machine):
        return "its parts changed"
    beside = made.read(folder)
    reason = damage(folder, beside) if beside else f"{folder.name} isn't whole"
    for top, names in edited(folder).items() if reason is None else ():
        warn(
            f"{', '.join(names)} in {top} was edited by hand; the next change that builds a new "
            "generation will stop for it"
        )
    return reason


def _assemble(machine: Machine, log: Path) -> None:
    layout = Layout(machine.workspace)
    digest = _digest(machine)
    previous = layout.current.resolve()
    folder, whole = made.choose(layout.generations, digest, damage, in_use(layout))
    if previous != folder and (found := edited(previous)):
        drop = " && ".join(
            f"git -C {top} checkout -- {' '.join(names)}" for top, names in found.items()
        )
        listed = ", ".join(name for names in found.values() for name in names)
        raise Failure(f"edited by hand: {listed}; keep the edits in a fork, or drop them: {drop}")
    if not whole:
        receipt = _copy(machine, folder)
        ran: dict[str, str] = {}
        old = made.read(previous, heads=dict, links=dict, nodes=list, scripts=dict)
        if old and (previous / "ComfyUI").is_dir():
            ran = {
                name: version
                for name, version in old["scripts"].items()
                if environment.scripts(machine).get(name) == version
            }
            carried.carry(
                previous / "ComfyUI",
                folder / "ComfyUI",
                set(old["nodes"]),
                {node.name for node in nodes.present(machine)},
                layout.left,
            )
        made.finish(folder, {"digest": digest, "scripts": ran, **receipt})
    made.point(_pointer(layout), folder, digest)


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


def _to_run(machine: Machine) -> list[CustomNode]:
    """The nodes whose script has not run in this environment, or not in this generation.

    A script writes into both; what it wrote into its node's folder is carried from the current
    generation to the next, and with it the note that it ran.
    """
    wanted = environment.scripts(machine)
    pending = made.read(environment.folder_of(machine)).get("pending", [])
    ran = made.read(folder_of(machine)).get("scripts", {})
    return [
        node
        for node in machine.custom_nodes
        if node.name in wanted and (node.name in pending or ran.get(node.name) != wanted[node.name])
    ]


def _scripts_pending(machine: Machine) -> str | None:
    waiting = _to_run(machine)
    names = ", ".join(node.name for node in waiting)
    if waiting and all(node.optional for node in waiting) and _runs(machine):
        # A script that failed would try again in the environment that instances run from.
        warn(f"the script of custom node {names} failed; it is tried again after doit down")
        return None
    return f"the scripts of {names} have not run" if waiting else None


def _runs(machine: Machine) -> bool:
    """Whether some process works in a generation of the same environment."""
    layout = Layout(machine.workspace)
    working = [layout.generations / name for name in apps.folders_in_use(layout.generations)]
    return environment.folder_of(machine).name in environment.of_generations(working)


def _run_scripts(machine: Machine, log: Path) -> None:
    """Run them in machine.yaml's order; one that is done is written down at once."""
    home, folder = environment.folder_of(machine), folder_of(machine)
    failures = []
    for node in _to_run(machine):
        try:
            _run_script(folder, node, log)
        except process.CommandFailed as failed:
            said = process.last_line(failed.output)
            text = f"the script of custom node {node.name} failed: {failed} ({said})"
            if node.optional:
                warn(f"{text}; it is optional")
            else:
                failures.append(text)
            continue
        pending = [name for name in made.read(home).get("pending", []) if name != node.name]
        environment.record(home, pending=pending)
        _note_script(machine, folder, node)
    if failures:
        raise Failure("; ".join(failures), log)


def _note_script(machine: Machine, folder: Path, node: CustomNode) -> None:
    """Write down that the script ran; it may have moved its own checkout, which then stays so."""
    receipt = made.read(folder)
    receipt["scripts"][node.name] = environment.scripts(machine)[node.name]
    place = f"ComfyUI/custom_nodes/{node.name}"
    if place in receipt["heads"]:
        receipt["heads"][place] = git.head(folder / place)
    made.finish(folder, receipt)


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
