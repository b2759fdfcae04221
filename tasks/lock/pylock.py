"""pylock.toml (PEP 751), the file in which uv reads and writes a resolution."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..spec import Package

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def read_packages(file: Path) -> dict[str, Package]:
    """The packages that uv wrote, by name."""
    entries = tomllib.loads(file.read_text(encoding="utf-8")).get("packages", [])
    return {entry["name"]: _package(entry) for entry in entries}


def write_preferences(file: Path, packages: Mapping[str, Package]) -> None:
    """Write the versions and commits that uv prefers when it resolves into this file."""
    lines = ['lock-version = "1.0"', 'created-by = "comfy-machine"']
    for name, package in sorted(packages.items()):
        lines += ["[[packages]]", f'name = "{name}"']
        if package.version:
            lines.append(f'version = "{package.version}"')
        if package.git:
            lines.append(f'vcs = {{type = "git", url = "{package.git}", '
                         f'commit-id = "{package.commit}"}}')  # fmt: skip
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _package(entry: dict[str, Any]) -> Package:
    """A package without the registry's address: each machine has its own."""
    if vcs := entry.get("vcs"):
        return Package(
            git=vcs["url"], commit=vcs["commit-id"], subdirectory=vcs.get("subdirectory")
        )
    if archive := entry.get("archive"):
        return Package(
            url=archive["url"],
            sha256=_hashes([archive]),
            size=archive.get("size"),
            built=not archive["url"].partition("#")[0].endswith(".whl"),
        )
    wheels = entry.get("wheels", [])
    sdist = [entry["sdist"]] if "sdist" in entry else []
    sizes = [file["size"] for file in [*wheels, *sdist] if "size" in file]
    return Package(
        version=entry["version"],
        sha256=_hashes([*wheels, *sdist]),
        size=next(iter(sizes), None),
        built=bool(sdist) and not wheels,
    )


def _hashes(files: list[dict[str, Any]]) -> tuple[str, ...]:
    digests = {file.get("hashes", {}).get("sha256") for file in files}
    return tuple(sorted(digest for digest in digests if digest))
