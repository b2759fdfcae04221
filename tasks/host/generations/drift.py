"""Describes how a generation differs from what it was built from.

Its own processes may have changed it, or a person may have installed something into it, which
works until the next generation.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from ..python import environments, uv
from ..repositories import git
from ..storage import digest_folders
from ..system import files
from ..system.program_files import PROGRAM
from ..system.redaction import redact
from . import manifest, reported_changes
from .reported_changes import CUSTOM_NODES, Changes


def lines(folder: Path) -> list[str]:
    """All differences of a generation, one line each."""
    return [*by_hand(folder), *by_processes(folder, reported_changes.read(folder))]


def by_processes(folder: Path, changes: Changes) -> list[str]:
    """The reported changes by custom nodes that are still in effect."""
    return [*_rewritten(folder, changes), *_moved(folder, changes), *_installed(folder, changes)]


def by_hand(folder: Path) -> list[str]:
    """Custom nodes and packages that were added by hand, with advice."""
    return [*_nodes(folder), *_packages(folder)]


def _rewritten(folder: Path, changes: Changes) -> Iterator[str]:
    stamps = manifest.recorded(folder)
    rewritten: dict[tuple[str, str], list[str]] = {}
    for path, node in changes.files.items():
        checkout = manifest.checkout_of(path, stamps)
        name = path.removeprefix(f"{checkout}/")
        if not changes.strays(checkout) and manifest.differs(folder, checkout, name, stamps):
            rewritten.setdefault((_title(node), checkout), []).append(name)
    for (title, checkout), names in rewritten.items():
        owner = _title(reported_changes.owner(checkout), "ComfyUI")
        repository = "its own repository" if owner == title else f"the repository of {owner}"
        yield f"{title} itself changes {', '.join(sorted(names))} of {repository}"


def _moved(folder: Path, changes: Changes) -> Iterator[str]:
    for place, commit in digest_folders.read(folder, heads=dict).get("heads", {}).items():
        head = git.head(folder / place)
        if head == commit or not changes.moved(place, head):
            continue
        node = changes.heads.get((place, head or "")) or changes.led.get(place)
        owner = reported_changes.owner(place)
        checkout = "its own checkout"
        if node != owner:
            checkout = f"the checkout of {_title(owner, 'ComfyUI')}"
        yield (
            f"{_title(node)} itself moved {checkout} from {commit[:12]} to "
            f"{head[:12] if head else 'no commit'}, which machine.lock doesn't name"
        )


def _installed(folder: Path, changes: Changes) -> Iterator[str]:
    try:
        present = {each.name for each in uv.site_packages(folder / "environment").iterdir()}
    except OSError:
        present = set()
    removed = [name for name in changes.gone if name.endswith(".dist-info") and name not in present]
    events = [(name, changes.gone[name], "removed") for name in removed]
    events += [(name, node, "installed") for name, node in changes.new.items() if name in present]
    packages: dict[str, list[str]] = {}
    for dist_info, node, verb in events:
        package = " ".join(environments.named(dist_info))
        packages.setdefault(f"{_title(node)} {verb}", []).append(package)
    for event, names in packages.items():
        yield f"{event} {', '.join(sorted(names))}, which machine.lock doesn't say"
    for name, node in changes.nodes.items():
        if os.path.lexists(folder / CUSTOM_NODES / name):
            yield f"{_title(node)} put {name} into custom_nodes"


def _title(node: str | None, other: str = "something that was loaded") -> str:
    return f"custom node {node}" if node else other


def _nodes(folder: Path) -> Iterator[str]:
    receipt = digest_folders.read(folder, nodes=list)
    if not receipt:
        return
    tracked = manifest.recorded(folder).get("ComfyUI", {})
    prefix = "custom_nodes/"
    builtin = {name[len(prefix) :].partition("/")[0] for name in tracked if name.startswith(prefix)}
    expected = {*receipt["nodes"], *builtin, *reported_changes.read(folder).nodes, files.BYTECODE}
    try:
        names = sorted(os.listdir(folder / CUSTOM_NODES))  # noqa: PTH208
    except OSError:
        return
    for name in names:
        node = folder / CUSTOM_NODES / name
        if name in expected or name.startswith(".") or name.endswith(".disabled"):
            continue
        if node.is_dir() or name.endswith(".py"):
            entry = _entry(node) or "as a repository of yours"
            yield (
                f"custom node {name} was installed by hand; declare it under custom_nodes: "
                f"{entry}, or drop it: rm -r {node} && {PROGRAM} restart"
            )


def _entry(node: Path) -> str:
    """The line of machine.yaml that declares this folder; empty if unknown."""
    if node.is_symlink():
        return f"- {{path: {files.real(node)}}}"
    url, ref = git.origin(node), git.head(node)
    if url is None:
        url, ref = _url_in_project(node), None
    if not url:
        return ""
    name = "" if url.rstrip("/").removesuffix(".git").endswith(f"/{node.name}") else node.name
    fields = {"url": redact(url), "name": name, "ref": ref}
    return f"- {{{', '.join(f'{key}: {value}' for key, value in fields.items() if value)}}}"


def _url_in_project(node: Path) -> str:
    """The repository in the pyproject.toml of a node from the registry; empty if unknown."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        project = tomllib.loads((node / "pyproject.toml").read_text())
        urls = {key.lower(): value for key, value in project["project"]["urls"].items()}
        return str(urls["repository"])
    except (OSError, ValueError, LookupError, AttributeError):
        return ""


def _packages(folder: Path) -> Iterator[str]:
    home = files.real(folder / "environment")
    by_nodes = reported_changes.read(folder).packages
    versions = {n: v for n, v in environments.additions(home).items() if n not in by_nodes}
    if versions:
        listed = ", ".join(f"{name}=={version}" for name, version in sorted(versions.items()))
        yield (
            f"installed by hand: {listed}; the next new environment won't have that: declare it "
            f"(python.packages: [{listed}]), or drop it: {uv.binary()} pip uninstall --python "
            f"{home / 'bin' / 'python'} {' '.join(versions)} && {PROGRAM} restart"
        )
