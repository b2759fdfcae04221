"""The environment that a run wants, worked out once and handed down."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from .. import nodes
from ..engine.run import Run
from ..host.python import pth_hook
from ..host.system import files
from ..lock import packages, preinstalled
from ..spec import Package

INSTALL_SCRIPT = "install.py"


@dataclass(frozen=True)
class Target:
    """What makes one environment differ from another."""

    packages: Mapping[str, Package]
    """The locked packages."""
    preinstalled: Mapping[str, str]
    """Package of the base interpreter that this environment uses → its version."""
    sees_base: bool
    scripts: Mapping[str, str]
    """Node with an install script → the script's version."""

    @cached_property
    def digest(self) -> str:
        return files.digest(
            {
                "interpreter": sys.version,
                "packages": {name: p.requirement(name) for name, p in self.packages.items()},
                "preinstalled": self.preinstalled,
                "scripts": self.scripts,
                "hook": pth_hook.LINE,
                # Older environments share their files with uv's cache.
                "own": True,
            }
        )


def target_of(run: Run) -> Target:
    """Raises Failure before the first resolution."""
    return Target(
        packages.required(run).packages,
        preinstalled.versions(run),
        preinstalled.is_chosen(run),
        script_versions(run),
    )


def script_versions(run: Run) -> dict[str, str]:
    """Node with an install script → the script's version."""
    versions = {}
    for node in nodes.present_nodes(run):
        script = nodes.folder_of(run, node) / INSTALL_SCRIPT
        if node.script or script.is_file():
            commit = nodes.source_of(run, node).read().get("commit")
            versions[node.name] = str(commit or files.file_digest(script)) + (node.script or "")
    return versions
