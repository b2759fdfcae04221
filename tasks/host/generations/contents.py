"""What a generation consists of, in versions that people know, and how two of them differ."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ..comfyui import source_facts
from ..python import environments
from ..repositories import git
from ..storage import digest_folders
from ..system import files

TAG = re.compile(r"v?\d+(\.\d+)+\S*|v\d+")
"""A ref that reads like a version."""
SHORT = 9
"""Digits of a commit, where nothing else tells two versions apart."""


@dataclass(frozen=True)
class Part:
    """ComfyUI or a custom node in a generation; `str()` is its version as people know it."""

    folder: Path
    commit: str | None = None
    """None: a local folder, which is linked and has no version."""
    version: str = ""
    """What it says itself."""
    tag: str = ""
    """What machine.yaml asked for, if that was a version."""

    @cached_property
    def date(self) -> str:
        """The day of its commit, 2026-11-29; empty if unknown."""
        return git.commit_date(self.folder) if self.commit else ""

    def __str__(self) -> str:
        return self.version or self.tag or self.date or (self.commit or "local folder")[:SHORT]


@dataclass(frozen=True)
class Contents:
    """The parts of a generation; packages are name → version."""

    comfyui: Part
    nodes: Mapping[str, Part] = field(default_factory=dict)
    packages: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Move:
    """How something differs between two generations; None: it isn't there."""

    name: str
    before: str | None
    after: str | None


@dataclass(frozen=True)
class Changes:
    """What another generation has instead."""

    comfyui: tuple[Move, ...]
    """One, or none where it is the same."""
    nodes: tuple[Move, ...]
    packages: tuple[Move, ...]


def read(folder: Path) -> Contents:
    """The contents of a generation; what can't be read is left out. Never raises."""
    receipt = digest_folders.read(folder, heads=dict, nodes=list)
    heads, refs = receipt.get("heads", {}), receipt.get("refs")
    refs = refs if isinstance(refs, dict) else {}
    code = source_facts.of(receipt.get("code"))
    comfyui = folder / "ComfyUI"
    try:
        packages = environments.installed(files.real(folder / "environment"))
    except OSError:
        packages = {}
    return Contents(
        Part(comfyui, heads.get("ComfyUI"), code.version, _tag(refs.get("ComfyUI"))),
        {
            name: _node(comfyui / "custom_nodes" / name, heads, refs.get(name))
            for name in map(str, receipt.get("nodes", ()))
        },
        packages,
    )


def _node(folder: Path, heads: Mapping[str, str], ref: object) -> Part:
    commit = heads.get(f"ComfyUI/custom_nodes/{folder.name}")
    return Part(folder, commit, project_version(folder) if commit else "", _tag(ref))


def _tag(ref: object) -> str:
    return ref if isinstance(ref, str) and TAG.fullmatch(ref) else ""


def project_version(checkout: Path) -> str:
    """The version in a checkout's pyproject.toml; empty without one."""
    return _printable(_project(checkout).get("version"))


def project_repository(checkout: Path) -> str:
    """The repository in a checkout's pyproject.toml; empty without one."""
    urls = _project(checkout).get("urls")
    named = urls.items() if isinstance(urls, dict) else ()
    return next((_printable(url) for name, url in named if name.lower() == "repository"), "")


def _printable(value: object) -> str:
    return value if isinstance(value, str) and value.isprintable() else ""


def _project(checkout: Path) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        project = tomllib.loads(files.read_bytes(checkout / "pyproject.toml").decode())["project"]
    except (OSError, ValueError, LookupError):
        return {}
    return project if isinstance(project, dict) else {}


def compare(before: Contents, after: Contents) -> Changes:
    """What is different in `after`."""
    names = sorted({*before.nodes, *after.nodes})
    packages = sorted({*before.packages, *after.packages})
    moves = [(name, before.packages.get(name), after.packages.get(name)) for name in packages]
    return Changes(
        tuple(_moved("ComfyUI", before.comfyui, after.comfyui)),
        tuple(
            move
            for name in names
            for move in _moved(name, before.nodes.get(name), after.nodes.get(name))
        ),
        tuple(Move(name, old, new) for name, old, new in moves if old != new),
    )


def _moved(name: str, before: Part | None, after: Part | None) -> Iterator[Move]:
    if before is None or after is None:
        yield Move(name, str(before) if before else None, str(after) if after else None)
    elif before.commit != after.commit:
        yield Move(name, *_told_apart(before, after))


def _told_apart(before: Part, after: Part) -> tuple[str, str]:
    """Both versions, by the first thing that differs."""
    if str(before) != str(after):
        return str(before), str(after)
    for old, new in ((before.tag, after.tag), (before.date, after.date)):
        if old and new and old != new:
            return f"{before} ({old})", f"{after} ({new})"
    old, new = before.commit or "local folder", after.commit or "local folder"
    return f"{before} ({old[:SHORT]})", f"{after} ({new[:SHORT]})"
