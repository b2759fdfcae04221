"""What a machine is made of as it is built, in the terms that other tools have for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ...engine.run import Run
from ...host.generations import manifest
from ...host.python import environments
from ...host.repositories import git
from ...host.system import files
from ...host.system.failure import Failure
from ...host.system.program_files import PROGRAM
from ...host.system.redaction import redact
from ...spec.model import COMFYUI_REPO
from ...spec.urls import parse_remote, same_repository

CUSTOM_NODES = "ComfyUI/custom_nodes"
DISABLED = ".disabled"
"""How ComfyUI-Manager ends the name of what ComfyUI shall not load, or the folder of such."""
FORMER_REPO = "https://github.com/comfyanonymous/ComfyUI.git"
"""Where ComfyUI was before it moved; it is the same repository."""
NOT_FROZEN = frozenset(["pip"])
"""What `pip freeze` leaves out."""


@dataclass(frozen=True)
class BuiltRepository:
    """A custom node's checkout."""

    url: str
    commit: str
    disabled: bool = False


@dataclass(frozen=True)
class BuiltModel:
    """A model that can be downloaded."""

    target: str
    url: str
    sha256: str | None


@dataclass
class Built:
    """The current generation and the models."""

    comfyui: str | None = None
    """Its commit; None: a local folder."""
    repositories: list[BuiltRepository] = field(default_factory=list)
    registered: dict[str, str] = field(default_factory=dict)
    """Custom nodes of the registry: id → version."""
    files: dict[str, bool] = field(default_factory=dict)
    """Custom nodes that are one file → whether each is disabled."""
    packages: dict[str, str] = field(default_factory=dict)
    """Lines as of `pip freeze`: `name==version` → "", and a name alone → its address."""
    models: list[BuiltModel] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    """What has no address that anybody else could get it from."""
    lost_models: list[str] = field(default_factory=list)
    """The same, of models."""


def read(run: Run) -> Built:
    """Raises Failure where nothing is built, and OSError."""
    folder = files.real(run.layout.current)
    if not (folder / "ComfyUI").is_dir():
        raise Failure(f"nothing is built yet: run {PROGRAM} build")
    built = Built(packages=_packages(run, folder))
    _add_comfyui(run, folder / "ComfyUI", built)
    _add_nodes(run, folder, built)
    for checkout, names in manifest.edited(folder).items():
        where = checkout.name if checkout.name == "ComfyUI" else f"custom node {checkout.name}"
        built.lost.append(f"{where}: edits by hand of {', '.join(names)}")
    _add_models(run, built)
    return built


def _add_comfyui(run: Run, checkout: Path, built: Built) -> None:
    if run.machine.comfyui.path:
        built.lost.append(f"ComfyUI is the local folder {run.machine.comfyui.path}")
        return
    built.comfyui = git.head(checkout)
    url = git.origin(checkout) or ""
    if not any(same_repository(url, known) for known in (COMFYUI_REPO, FORMER_REPO)):
        built.lost.append(f"ComfyUI comes from {redact(url)}, of which only the commit is written")


def _add_nodes(run: Run, folder: Path, built: Built) -> None:
    tracked = manifest.recorded(folder).get("ComfyUI", {})
    own = {Path(name).parts[1] for name in tracked if name.startswith("custom_nodes/")}
    selected = run.machine.selected_nodes
    for path in _custom_nodes(folder):
        name = path.name.removesuffix(DISABLED)
        off = name != path.name or path.parent.name == DISABLED
        disabled = off or (selected is not None and name not in selected)
        if name.endswith(".py") and path.is_file():
            built.files[name] = disabled
            if path.name not in own:
                built.lost.append(f"custom node {name} is a file of this machine")
        elif path.is_symlink():
            built.lost.append(f"custom node {name} is the local folder {files.real(path)}")
        elif path.is_dir() and path.name not in own:
            pin = run.machine.lock.custom_nodes.get(name)
            if pin is None or pin.archive is None:
                _add_checkout(path, name, disabled, built)
            elif git.head(path) == pin.commit:
                built.registered[pin.archive.id] = pin.archive.version
            else:
                built.lost.append(f"custom node {name} isn't built as locked: run {PROGRAM} build")
    _add_what_they_lack(run, folder, built)


def _custom_nodes(folder: Path) -> Iterator[Path]:
    """Those that ComfyUI-Manager disabled lie in a folder of their own."""
    top = folder / CUSTOM_NODES
    off = top / DISABLED
    for path in sorted([*top.iterdir(), *(off.iterdir() if off.is_dir() else ())]):
        if not path.name.startswith(".") and path.name != files.BYTECODE:
            yield path


def _add_checkout(path: Path, name: str, disabled: bool, built: Built) -> None:
    url, commit = git.origin(path), git.head(path)
    try:
        url = parse_remote(url).url if url else None
    except ValueError as error:
        built.lost.append(f"custom node {name}: {error}")
        return
    if url and commit:
        built.repositories.append(BuiltRepository(url, commit, disabled))
    else:
        built.lost.append(f"custom node {name} is a folder without a repository")


def _add_what_they_lack(run: Run, folder: Path, built: Built) -> None:
    for node in run.machine.custom_nodes:
        if not (folder / CUSTOM_NODES / node.name).exists():
            built.lost.append(f"custom node {node.name} isn't built: run {PROGRAM} build")
        elif node.script:
            built.lost.append(f"custom node {node.name}: its script in machine.yaml")


def _packages(run: Run, folder: Path) -> dict[str, str]:
    python = run.machine.lock.python
    locked = python.packages if python else {}
    found: dict[str, str] = {}
    for name, version in sorted(environments.installed(files.real(folder / "environment")).items()):
        package = locked.get(name)
        if package and (package.git or package.url):
            found[name] = package.requirement(name).partition(" @ ")[2].partition(" --hash")[0]
        elif name not in NOT_FROZEN:
            found[f"{name}=={version}"] = ""
    return found


def _add_models(run: Run, built: Built) -> None:
    for file in run.machine.models.files:
        if file.url is None:
            built.lost_models.append(f"model {file.target} is {file.source} on this machine")
            continue
        pin = run.machine.lock.models.get(file.target)
        sha256 = file.sha256 or (pin.sha256 if pin and pin.url == file.url else None)
        built.models.append(BuiltModel(file.target, file.url, sha256))
