"""Links to models that lie on disks and volumes, and extra_model_paths.yaml."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from urllib.parse import quote

from tasks import source
from tasks.engine.step import Task, group, step
from tasks.host import files
from tasks.host.failure import Failure
from tasks.spec import Machine, ModelFile

#: ComfyUI's folder types, `clip` and `unet` under their newer names (folder_paths.py of 0.3.64).
KINDS = tuple(
    """checkpoints loras vae text_encoders diffusion_models clip_vision style_models embeddings
    vae_approx controlnet gligen upscale_models hypernetworks photomaker model_patches
    audio_encoders configs diffusers classifiers""".split()
)

_one_writer = threading.Lock()


def tasks(machine: Machine) -> Iterator[Task]:
    layout = machine.layout
    yield group("links", "Models: ComfyUI's own files, links to volumes, extra model paths")
    yield step(
        "links:own",
        "The files that ComfyUI brings in models/",
        check=partial(_not_seeded, machine),
        action=partial(_seed, machine),
        log=layout.log("links:own"),
        after=["validation"],
    )
    yield step(
        "links:extra_model_paths",
        "extra_model_paths.yaml",
        check=partial(_paths_differ, machine),
        action=partial(_write_paths, machine),
        log=layout.log("links:extra_model_paths"),
        after=["directories"],
    )
    yield step(
        "links:prune",
        "Links to models that left machine.yaml are removed",
        check=partial(_unwanted, machine),
        action=partial(_prune, machine),
        log=layout.log("links:prune"),
        after=["directories"],
    )
    for file in machine.models.files:
        yield step(
            f"links:{_task_name(file)}",
            f"Model {file.target}",
            check=partial(_wrong, machine, file),
            action=partial(_link, machine, file),
            log=layout.log(f"links:{_task_name(file)}"),
            after=["directories", "links:prune"],
        )


def _task_name(file: ModelFile) -> str:
    """The target; what doit can't have in a name as %XX, and always with a folder."""
    name = quote(file.target, safe="/ ()[]{}+,@!&~")
    return name if "/" in name else f"./{name}"


def _place(machine: Machine, target: str) -> Path:
    return machine.models.folder / target


def _wrong(machine: Machine, file: ModelFile) -> str | None:
    assert file.source is not None
    place = _place(machine, file.target)
    if files.link_target(place) != str(file.source):
        return f"{place} doesn't point at {file.source}"
    if not file.source.exists():
        return f"{file.source} isn't there"
    if str(place) not in _made(machine):
        return f"{place} isn't in the list of our links"
    return None


def _link(machine: Machine, file: ModelFile, log: Path) -> None:
    assert file.source is not None
    if not file.source.exists():
        raise Failure(
            f"the source of {file.target} isn't there: {file.source}; mount it or correct source"
        )
    place = _place(machine, file.target)
    parent = place.parent
    parent.mkdir(parents=True, exist_ok=True)
    if not parent.resolve().is_relative_to(machine.models.folder.resolve()):
        raise Failure(f"{file.target} leaves the models folder through a link: {parent.resolve()}")
    with _one_writer:
        links = _made(machine) | {str(place): str(file.source)}
        files.write_receipt(_list(machine), {"links": links})
    files.point(place, str(file.source))


def _list(machine: Machine) -> Path:
    """The list of links that we made, place → source; what is not in it is never removed."""
    return machine.layout.state / "links.json"


def _made(machine: Machine) -> dict[str, str]:
    links: dict[str, str] = files.read_receipt(_list(machine), links=dict).get("links", {})
    return links


def _gone(machine: Machine) -> set[str]:
    return set(_made(machine)) - {str(_place(machine, f.target)) for f in machine.models.files}


def _unwanted(machine: Machine) -> str | None:
    gone = _gone(machine)
    return f"{', '.join(sorted(gone))} left machine.yaml" if gone else None


def _prune(machine: Machine, log: Path) -> None:
    links = _made(machine)
    for place in _gone(machine):
        _unlink(Path(place), links.pop(place))
    files.write_receipt(_list(machine), {"links": links})


def _unlink(place: Path, source_path: str) -> None:
    """Remove a link that is still as we made it; folders stay, instances may have listed them."""
    if files.link_target(place) == source_path:
        place.unlink()


def _seeds(machine: Machine) -> Path:
    return machine.layout.state / "own-models.json"


def _not_seeded(machine: Machine) -> str | None:
    seeded = files.read_receipt(_seeds(machine))
    wanted = {
        "commit": source.of(machine).read().get("commit"),
        "folder": str(machine.models.folder),
    }
    return None if seeded == wanted else "ComfyUI's own files were not copied into this folder yet"


def _seed(machine: Machine, log: Path) -> None:
    comfyui = source.of(machine)
    commit = str(comfyui.read().get("commit"))
    folder = comfyui.checkout(commit) / "models"
    if os.access(machine.models.folder, os.W_OK):
        for relative in files.walk(folder):
            place = machine.models.folder / relative
            if not os.path.lexists(place):
                files.copy_tree(folder / relative, place)
    files.write_receipt(_seeds(machine), {"commit": commit, "folder": str(machine.models.folder)})


def _paths_text(machine: Machine) -> str:
    from tasks.host import templates

    return templates.render(
        "extra_model_paths.yaml.j2", roots=machine.models.extra_roots, kinds=KINDS
    )


def _paths_differ(machine: Machine) -> str | None:
    file = machine.layout.extra_model_paths
    if not machine.models.extra_roots:
        return f"{file} isn't needed any more" if file.exists() else None
    for root in machine.models.extra_roots:
        if not root.path.is_dir():
            return f"{root.path} isn't there"
    same = file.is_file() and file.read_text() == _paths_text(machine)
    return None if same else f"{file} differs"


def _write_paths(machine: Machine, log: Path) -> None:
    file = machine.layout.extra_model_paths
    if not machine.models.extra_roots:
        files.remove(file)
        return
    for root in machine.models.extra_roots:
        if not root.path.is_dir():
            raise Failure(f"models.extra_roots: {root.path} isn't there: mount it or correct path")
    files.write_text(file, _paths_text(machine))
