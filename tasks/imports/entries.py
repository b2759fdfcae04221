"""Entries of a machine.yaml that is to be written, each with what says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Node:
    """A custom node: of a repository, or in a folder."""

    url: str = ""
    ref: str = ""
    id: str = ""
    """In the registry, instead of a repository."""
    version: str = ""
    name: str = ""
    """Empty: its repository's."""
    path: str = ""
    requirements: bool = True
    env: Mapping[str, str] = field(default_factory=dict)
    script: str = ""
    notes: Sequence[str] = ()
    """Comments before it, a line each."""


@dataclass(frozen=True)
class Line:
    """An entry that is one text: a requirement, an argument, a folder."""

    text: str
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Root:
    """A folder with models."""

    path: str
    folders: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Type → folders below it; empty: they are named like ComfyUI's."""
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class ModelFile:
    """A model: a download, or a file that is on a disk already."""

    target: str
    url: str = ""
    source: str = ""
    sha256: str = ""
    optional: bool = False
    notes: Sequence[str] = ()
