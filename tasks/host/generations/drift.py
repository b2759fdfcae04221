"""Where a generation differs from what it was made of: what to say of that.

What its own processes did is part of it. What was installed into it by hand works as long as
it is used, and is nowhere written down.
"""

from __future__ import annotations

import configparser
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from ..python import environments, uv
from ..repositories import git
from ..storage import digest_folders
from ..system import files
from ..system.redaction import redact
from . import manifest, reported_changes
from .reported_changes import CUSTOM_NODES, Changes


def lines(folder: Path) -> list[str]:
    """All of it, of one generation."""
    return [*by_hand(folder), *by_processes(folder, reported_changes.read(folder))]


def by_processes(folder: Path, own: Changes) -> list[str]:
    """What custom nodes changed while they were loaded, or since, as far as it is still so."""
    return [*_rewritten(folder, own), *_moved(folder, own), *_installed(folder, own)]


def by_hand(folder: Path) -> list[str]:
    """Custom nodes and packages added by hand, with what can be done."""
    return [*_nodes(folder), *_packages(folder)]


def _rewritten(folder: Path, own: Changes) -> Iterator[str]:
    places = manifest.recorded(folder)
    found: dict[tuple[str, str], list[str]] = {}
    for path, who in own.files.items():
        place = f"{CUSTOM_NODES}/{reported_changes.owner(path)}"
        place = place if place in places else "ComfyUI"
        name = path.removeprefix(f"{place}/")
        if not own.strays(place) and manifest.differs(folder, place, name, places):
            found.setdefault((_title(who), place), []).append(name)
    for (who, place), names in found.items():
        whose = _title(reported_changes.owner(place), "ComfyUI")
        where = "its own repository" if whose == who else f"the repository of {whose}"
        yield f"{who} itself changes {', '.join(sorted(names))} of {where}"


def _moved(folder: Path, own: Changes) -> Iterator[str]:
    for place, commit in digest_folders.read(folder, heads=dict).get("heads", {}).items():
        head = git.head(folder / place)
        if head == commit or not own.moved(place, head):
            continue
        by, whose = (
            own.heads.get((place, head or "")) or own.led.get(place),
            reported_changes.owner(place),
        )
        of = "its own checkout" if by == whose else f"the checkout of {_title(whose, 'ComfyUI')}"
        where = head[:12] if head else "no commit"
        yield (
            f"{_title(by)} itself moved {of} from {commit[:12]} to {where}, which machine.lock "
            "doesn't name"
        )


def _installed(folder: Path, own: Changes) -> Iterator[str]:
    there = _dist_infos(folder)
    found: dict[str, list[str]] = {}
    for dist_info, who in own.gone.items():
        if dist_info.endswith(".dist-info") and dist_info not in there:
            name, version = environments.named(dist_info)
            found.setdefault(f"{_title(who)} removed", []).append(f"{name} {version}")
    for dist_info, who in own.new.items():
        if dist_info in there:
            name, version = environments.named(dist_info)
            found.setdefault(f"{_title(who)} installed", []).append(f"{name} {version}")
    for said, names in found.items():
        yield f"{said} {', '.join(sorted(names))}, which machine.lock doesn't say"
    for name, who in own.nodes.items():
        if os.path.lexists(folder / CUSTOM_NODES / name):
            yield f"{_title(who)} put {name} into custom_nodes"


def _title(pack: str | None, other: str = "something that was loaded") -> str:
    return f"custom node {pack}" if pack else other


def _nodes(folder: Path) -> Iterator[str]:
    receipt = digest_folders.read(folder, nodes=list)
    if not receipt:
        return
    tracked = manifest.recorded(folder).get("ComfyUI", {})
    prefix = "custom_nodes/"
    own = {name[len(prefix) :].partition("/")[0] for name in tracked if name.startswith(prefix)}
    known = {*receipt["nodes"], *own, *reported_changes.read(folder).nodes, files.BYTECODE}
    try:
        there = sorted(os.listdir(folder / CUSTOM_NODES))  # noqa: PTH208
    except OSError:
        return
    for name in there:
        place = folder / CUSTOM_NODES / name
        if name in known or name.startswith(".") or name.endswith(".disabled"):
            continue
        if place.is_dir() or name.endswith(".py"):
            declare = _entry(place)
            keep = declare or "as a repository of yours"
            yield (
                f"custom node {name} was installed by hand; declare it under custom_nodes: {keep}, "
                f"or drop it: rm -r {place} && doit restart"
            )


def _entry(place: Path) -> str:
    """The line of machine.yaml that declares a folder as it is; empty where that isn't known."""
    if place.is_symlink():
        return f"- {{path: {place.resolve()}}}"

    config = configparser.ConfigParser(strict=False, interpolation=None)
    ref = git.head(place)
    try:
        config.read(place / ".git" / "config")
        url = config.get('remote "origin"', "url")
    except (configparser.Error, OSError, ValueError):
        url, ref = _told_url(place), None
    if not url:
        return ""
    named = "" if url.rstrip("/").removesuffix(".git").endswith(f"/{place.name}") else place.name
    words = {"url": redact(url), "name": named, "ref": ref}
    return f"- {{{', '.join(f'{key}: {value}' for key, value in words.items() if value)}}}"


def _told_url(place: Path) -> str:
    """The repository that a node from the registry names in its pyproject.toml."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        project = tomllib.loads((place / "pyproject.toml").read_text())
        urls = {key.lower(): value for key, value in project["project"]["urls"].items()}
        return str(urls["repository"])
    except (OSError, ValueError, LookupError, AttributeError):
        return ""


def _packages(folder: Path) -> Iterator[str]:
    home = (folder / "environment").resolve()
    found = environments.additions(home)
    for name in reported_changes.read(folder).packages:
        found.pop(name, None)
    if found:
        listed = ", ".join(f"{name}=={version}" for name, version in sorted(found.items()))
        yield (
            f"installed by hand: {listed}; the next new environment won't have that: declare it "
            f"(python.packages: [{listed}]), or drop it: {uv.binary()} pip uninstall --python "
            f"{home / 'bin' / 'python'} {' '.join(found)} && doit restart"
        )


def _dist_infos(folder: Path) -> set[str]:
    try:
        return {each.name for each in uv.site_packages(folder / "environment").iterdir()}
    except OSError:
        return set()
