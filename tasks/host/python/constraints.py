"""An environment's constraints file, which keeps pip and uv from changing its packages."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from ..system import files
from . import environments

#: Both take several files, separated by spaces.
VARIABLES = ("PIP_CONSTRAINT", "UV_CONSTRAINT")


def write(environment: Path, names: Iterable[str], beside: Mapping[str, str]) -> None:
    """Write the versions of these packages in the environment, and those `beside` it.

    Packages from a repository or URL have their version too: with the URL, pip would fetch them
    again each time. Raises OSError.
    """
    installed = environments.installed(environment)
    versions = {name: installed[name] for name in names if name in installed} | dict(beside)
    lines = [f"{name}=={version}\n" for name, version in sorted(versions.items())]
    files.write_text(environment / environments.CONSTRAINTS, "".join(lines))


def within(environment: Path, variables: Mapping[str, str]) -> dict[str, str]:
    """These variables, extended for a process that works in this environment.

    The user's own constraints files still apply. uv copies files, because by default it hard-links
    them to its cache.
    """
    extended = {"UV_LINK_MODE": "copy", **variables}
    file = environment / environments.CONSTRAINTS
    # Environments of older versions have no such file; in a plan, the environment doesn't exist.
    if file.exists() or not environment.exists():
        # pip and uv split paths at spaces and expand ${…}, but not in URLs.
        ours = file.absolute().as_uri() if re.search(r"[\s$]", str(file)) else str(file)
        for name in VARIABLES:
            extended[name] = " ".join([*variables.get(name, "").split(), ours])
    return extended
