"""Import an environment's torch family once, and explain what doesn't import."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..engine.run import Run
from ..host.python import environments, import_trial, uv
from ..host.python.import_trial import Broken, Tried
from ..host.storage import digest_folders
from ..host.system import files, gpu, process
from ..host.system.failure import Failure
from ..host.system.program_files import PROGRAM
from ..lock import packages, preinstalled, torch_family
from ..lock.torch_family import TORCH_FAMILY
from ..spec import expand

DRIVER = ("libcuda.so", "libnvidia-")
"""Prefixes of libraries that come with NVIDIA's driver, not with a package."""


def reason_to_import(receipt: Mapping[str, Any]) -> str | None:
    """Why the family must be imported; None: the environment's receipt says that it was.

    An import that needed a library of the driver is tried again once there is a driver.
    """
    family = receipt.get("family")
    if not isinstance(family, dict):
        return "its torch was never imported"
    if (awaited := family.get("awaits")) and gpu.driver_present():
        return f"its torch was never imported, since {awaited} was missing"
    return None


def inherited_result(previous: Path, folder: Path) -> dict[str, Any]:
    """The family's result in the receipt of `previous`, if `folder` only adds other packages."""
    family = digest_folders.read(previous).get("family")
    before, now = environments.installed(previous), environments.installed(folder)
    added = {name for name in now if name not in before}
    if not isinstance(family, dict) or not before.items() <= now.items() or added & {*TORCH_FAMILY}:
        return {}
    return {"family": family}


def import_family(run: Run, folder: Path, log: Path) -> dict[str, Any]:
    """Import the members that this environment has; return the result for its receipt.

    Raises Failure with the cause, and with a set that was tried and does import, if found.
    """
    versions = environments.installed(folder) | preinstalled.versions(run)
    members = {name: versions[name] for name in TORCH_FAMILY if name in versions}
    if not members:
        return {"imported": {}}
    run.progress("environment", None, f"import {', '.join(members)}")
    tried = _attempt(run, folder, list(members), log)
    if tried.broken is None:
        return {"imported": tried.imported}
    broken = tried.broken
    if _needs_driver(run, broken):
        run.warn(
            f"unknown whether {broken.name} imports: it needs {broken.library}, which comes with "
            "the driver"
        )
        return {"imported": tried.imported, "awaits": broken.library}
    raise Failure(_explain(run, folder, members, broken, log), log)


def _attempt(run: Run, folder: Path, members: list[str], log: Path) -> Tried:
    env = process.allowed_environment(os.environ)
    for key, written in run.machine.instances.env.items():
        if key.startswith("LD_"):
            with contextlib.suppress(KeyError):
                env[key] = expand(written, run.machine.env)
    scratch = run.layout.scratch / "imports"
    return import_trial.attempt(folder / "bin" / "python", members, env, scratch, log)


def _needs_driver(run: Run, broken: Broken) -> bool:
    """Whether it only lacks the driver, as in an image build."""
    here = run.machine.instances.cpu_only or gpu.driver_present()
    return not here and broken.library is not None and broken.library.startswith(DRIVER)


def _explain(run: Run, folder: Path, members: dict[str, str], broken: Broken, log: Path) -> str:
    beside = [f"{name} {version}" for name, version in members.items() if name != broken.name]
    together = f" beside {' and '.join(beside)}" if beside else ""
    cause = broken.shown.replace(f"{uv.site_packages(folder)}/", "")
    problem = f"{broken.name} {members[broken.name]} doesn't import{together}: {cause}"
    if not broken.final:
        return f"{problem}; give it more time or memory, then run {PROGRAM} again"
    if preinstalled.is_chosen(run):
        return f"{problem}; it is preinstalled: use another Python for .venv, or another torch"
    found, failed = _find_working_set(run, folder, members, broken, log)
    if found:
        pins = [f"{name}=={version}" for name, version in found.items()]
        wins = [*packages.other_overrides(run), *pins]
        return f"{problem}; these versions do (tried): python.overrides: {wins}"
    tried = [_joined(each) for each in failed]
    others = f"these fail too: {'; '.join(tried)}" if tried else "no other versions were found"
    return f"{problem}; {others}; choose versions that fit with python.overrides"


def _find_working_set(
    run: Run, folder: Path, members: dict[str, str], broken: Broken, log: Path
) -> tuple[dict[str, str] | None, list[dict[str, str]]]:
    """Versions of the family that import together, or None, and those that were tried and don't."""
    failed = [members]
    for constraints in torch_family.alternatives(members, broken.name):
        try:
            others = packages.with_other_family(run, constraints, log).packages
            family = {n: others[n].version or "" for n in members if n in others}
            if family in failed or "" in family.values():
                continue
            run.progress("environment", None, f"try {_joined(family)}")
            place = _trial_environment(run, folder)
            uv.sync(place, packages.requirements_file(run, others), *packages.uv_sources(run), log)
        except Failure:
            continue
        if _attempt(run, place, list(members), log).broken is None:
            files.remove(place)
            return family, failed[1:]
        failed.append(family)
    files.remove(run.layout.scratch / "trial")
    return None, failed[1:]


def _joined(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _trial_environment(run: Run, folder: Path) -> Path:
    place = run.layout.scratch / "trial"
    files.remove(place)
    environments.grow(folder, place)
    return place
