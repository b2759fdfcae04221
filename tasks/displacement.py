"""Locked packages that custom nodes replace while they are imported, past pip's constraints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from tasks import environment
from tasks.engine.said import warn
from tasks.host import changes, environments
from tasks.host.load_result import Outcome, Result
from tasks.spec import Machine


def hold(
    machine: Machine, folder: Path, results: Mapping[str, Result], log: Path
) -> dict[str, Result]:
    """Put back what was replaced. Whoever did it would do it again in an instance: its result
    says so, and no instance is started with it.

    Raises Failure as `environment.hold` does.
    """
    home = environment.folder_of(machine)
    there = environments.installed(home)
    who = _who(environment.displaced(machine, there), there, changes.read(folder).gone)
    named = f"custom node {', '.join(who)}" if who else "a custom node"
    for line in environment.hold(machine, home, f"{named}, while it was imported,", log):
        warn(line)
    return dict(results) | {
        name: replace(result, outcome=Outcome.DISPLACES, displaced=tuple(who[name]))
        for name, result in results.items()
        if name in who
    }


def _who(
    displaced: Mapping[str, object], there: Mapping[str, str], gone: Mapping[str, changes.Who]
) -> dict[str, list[str]]:
    """Custom node → the locked packages that it replaced."""
    found: dict[str, list[str]] = {}
    for dist_info, pack in gone.items():
        name, version = environments.named(dist_info)
        if name in displaced and pack:
            what = f"{name} {version} (by {there.get(name, 'nothing')})"
            found.setdefault(pack, []).append(what)
    return found
