"""The set of an environment as a constraints file, by which pip and uv refuse to move it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from ..system import files
from . import environments

FILE = "constraints.txt"
#: pip and uv take several files here, with spaces between them.
VARIABLES = ("PIP_CONSTRAINT", "UV_CONSTRAINT")


def write(environment: Path, names: Iterable[str], beside: Mapping[str, str]) -> None:
    """Name the versions that these packages have in the environment, and what is `beside` it.

    One from a repository or URL is named by its version too: with its address pip would fetch it
    anew each time. Raises OSError.
    """
    there = environments.installed(environment)
    versions = {name: there[name] for name in names if name in there} | dict(beside)
    lines = [f"{name}=={version}\n" for name, version in sorted(versions.items())]
    files.write_text(environment / FILE, "".join(lines))


def within(environment: Path, theirs: Mapping[str, str]) -> dict[str, str]:
    """The variables of a process that works in this environment, `theirs` among them.

    A file that the user names for pip or uv counts as well. uv copies, since its own way
    are hard links to its cache.
    """
    found = {"UV_LINK_MODE": "copy", **theirs}
    file = environment / FILE
    # An environment that an older comfy-machine made has no such file, a plan's is not made yet.
    if file.exists() or not environment.exists():
        # A path would end at a space, and be taken for a variable with ${; both read addresses.
        ours = file.absolute().as_uri() if re.search(r"[\s$]", str(file)) else str(file)
        found |= {name: " ".join([*theirs.get(name, "").split(), ours]) for name in VARIABLES}
    return found
