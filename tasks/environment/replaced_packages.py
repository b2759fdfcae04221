"""Locked packages that custom nodes replace during their import, past pip's constraints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ..engine.run import Run
from ..host.comfyui.load_result import Outcome, Result
from ..host.generations import reported_changes
from ..host.python import environments
from . import restoration
from . import stage as environment


def put_back(
    run: Run, folder: Path, results: Mapping[str, Result], log: Path, since: int
) -> dict[str, Result]:
    """Put back what was replaced since a moment (`trees.now`).

    A node that did it would do it again in an instance, so its result says so, and no instance
    starts with it. Raises Failure as `restoration.restore` does.
    """
    home = environment.folder_of(run)
    who = _replaced_by(
        restoration.find_changes(run, home, None).moved, reported_changes.read(folder).gone
    )
    named = f"custom node {', '.join(who)}" if who else "a custom node"
    who_acted = f"{named}, during its import,"
    for line in restoration.restore(run, home, who_acted, log, since=since, patches_stay=True)[0]:
        run.warn(line)
    return dict(results) | {
        name: replace(result, outcome=Outcome.DISPLACES, displaced=tuple(who[name]))
        for name, result in results.items()
        if name in who
    }


def _replaced_by(
    displaced: Mapping[str, str], gone: Mapping[str, reported_changes.Who]
) -> dict[str, list[str]]:
    """Custom node → the locked packages that it replaced."""
    found: dict[str, list[str]] = {}
    for dist_info, pack in gone.items():
        name, version = environments.named(dist_info)
        if name in displaced and pack:
            what = f"{name} {version} (by {displaced[name]})"
            found.setdefault(pack, []).append(what)
    return found
