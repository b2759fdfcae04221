"""What is installed in a Python environment, read from its metadata; nothing of it runs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..lock.requirements import normalized
from ..lock.torch_family import TORCH_FAMILY
from ..spec import Package
from ..spec.urls import refuse_url_credentials

if TYPE_CHECKING:
    from packaging.requirements import Requirement

NAMES = ("venv", ".venv", "env", "python_embeded", "python_embedded")
"""Folders in which people and the portable ComfyUI have their Python; its name is misspelt."""
SITES = ("lib/python3*/site-packages", "lib/python3*/dist-packages", "Lib/site-packages")
TOOLS = frozenset(
    ["pip", "setuptools", "wheel", "uv", "virtualenv", "conda", "comfy-cli", "comfyui-manager"]
)
"""They install packages; a machine doesn't need them."""
BACKEND = re.compile(r"cpu|cu\d+|rocm\d+(\.\d+)*|xpu")


@dataclass(frozen=True)
class Installed:
    """One distribution."""

    name: str
    """Normalized (PEP 503)."""
    version: str
    requested: bool
    """Whether somebody asked for it by name (PEP 376's REQUESTED); uv says so of every package."""
    requires: tuple[str, ...]
    tags: tuple[str, ...]
    """Of its wheel: `cp312-cp312-manylinux_2_17_x86_64`; empty: not known."""
    origin: Mapping[str, Any]
    """PEP 610's direct_url.json; empty: it is from an index."""

    @property
    def url(self) -> str:
        """Where it was downloaded, by address; empty: it comes from an index, git or a folder."""
        url = str(self.origin.get("url", ""))
        return url if "archive_info" in self.origin and url.startswith("http") else ""

    @property
    def repository(self) -> tuple[str, str] | None:
        """The repository that it was built from, and its commit."""
        about = self.origin.get("vcs_info")
        if not isinstance(about, dict) or about.get("vcs") != "git":
            return None
        return str(self.origin.get("url", "")), str(about.get("commit_id", ""))

    @property
    def is_local(self) -> bool:
        """Whether it was built from a folder or file of that machine."""
        return bool(self.origin) and not self.url and self.repository is None

    def package(self) -> Package:
        """As machine.lock has it. Raises ValueError."""
        if self.repository:
            url, commit = self.repository
            refuse_url_credentials(url)
            return Package(git=url, commit=commit, subdirectory=self.origin.get("subdirectory"))
        return Package(version=self.version)


@dataclass(frozen=True)
class Environment:
    """A Python environment: a folder with site-packages."""

    folder: Path
    sites: tuple[Path, ...]

    @cached_property
    def python(self) -> str:
        """Its minor version, 3.12; empty: not known."""
        for site in self.sites:
            if match := re.fullmatch(r"python(3\.\d+)", site.parent.name):
                return match[1]
        return next((f"3.{each.stem[7:]}" for each in self.folder.glob("python3*._pth")), "")

    @cached_property
    def packages(self) -> dict[str, Installed]:
        """By name; the first site counts, as it does for Python."""
        found: dict[str, Installed] = {}
        for about in metadata.distributions(path=[str(site) for site in self.sites]):
            if each := _installed(about):
                found.setdefault(each.name, each)
        return found


def find(places: Sequence[Path]) -> Environment | None:
    """The first environment in one of these folders, or that one of them is."""
    for place in places:
        for folder in (place, *(place / name for name in NAMES)):
            if found := at(folder):
                return found
    return None


def at(path: Path) -> Environment | None:
    """The environment of a folder, or of the Python in it; None: it is none."""
    if path.is_file() or (path.is_symlink() and not path.is_dir()):
        above = path.parent
        path = above.parent if above.name in ("bin", "Scripts") else above
    sites = dict.fromkeys(
        site for part in SITES for site in sorted(path.glob(part)) if site.is_dir()
    )
    return Environment(path, tuple(sites)) if sites else None


def torch_build(packages: Mapping[str, Installed]) -> str:
    """python.torch for the installed build; empty: it has none that an index offers."""
    if "torch" not in packages:
        return ""
    version, _, local = packages["torch"].version.partition("+")
    is_release = re.fullmatch(r"\d+(\.\d+)+(\.post\d+)?", version)
    if not is_release or (local and not BACKEND.fullmatch(local)):
        return ""
    return local or "pypi"


def preferences(packages: Mapping[str, Installed]) -> tuple[dict[str, Package], list[str]]:
    """The packages that a first resolution is to prefer, and the names of those whose files are for
    another Python than this one, which has perhaps no wheel of that version."""
    from packaging.tags import sys_tags

    here = {(tag.interpreter, tag.abi) for tag in sys_tags()}
    found, others = {}, []
    for name, each in packages.items():
        fits = not each.tags or any(tuple(tag.split("-")[:2]) in here for tag in each.tags)
        is_odd_torch = name in TORCH_FAMILY and not torch_build(packages)
        if not fits:
            others.append(name)
        elif not (each.is_local or is_odd_torch):
            try:
                found[name] = each.package()
            except ValueError:
                others.append(name)
    return found, others


def by_hand(
    packages: Mapping[str, Installed], required: Mapping[str, AbstractSet[str]]
) -> Iterator[Installed]:
    """Those that somebody installed by themselves: neither these files, which require packages with
    these extras, nor another package needs them."""
    needed = {*required, *_needed(packages, required)}
    for name, each in sorted(packages.items()):
        if each.requested and name not in needed | TOOLS | {*TORCH_FAMILY}:
            yield each


def _installed(about: metadata.Distribution) -> Installed | None:
    try:
        name, version = about.metadata["Name"], about.version
        if not name or not version:
            return None
        return Installed(
            name=normalized(name),
            version=version,
            requested=about.read_text("REQUESTED") is not None,
            requires=tuple(about.requires or ()),
            tags=tuple(re.findall(r"^Tag: *(\S+)", about.read_text("WHEEL") or "", re.M)),
            origin=_origin(about.read_text("direct_url.json")),
        )
    except (OSError, KeyError, UnicodeError):
        # What an interrupted installation left.
        return None


def _origin(text: str | None) -> dict[str, Any]:
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _needed(
    packages: Mapping[str, Installed], required: Mapping[str, AbstractSet[str]]
) -> Iterator[str]:
    """What packages require, with the extras that are asked for."""
    waiting = [(name, "") for name in packages]
    waiting += [(name, extra) for name, extras in required.items() for extra in extras]
    seen: set[tuple[str, str]] = set()
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in seen or name not in packages:
            continue
        seen.add((name, extra))
        for requirement in _requirements(packages[name], extra):
            yield (other := normalized(requirement.name))
            waiting += [(other, each) for each in requirement.extras]


def _requirements(package: Installed, extra: str) -> Iterator[Requirement]:
    from packaging.markers import UndefinedComparison, UndefinedEnvironmentName
    from packaging.requirements import InvalidRequirement, Requirement

    for text in package.requires:
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue
        try:
            applies = requirement.marker is None or requirement.marker.evaluate({"extra": extra})
        except (UndefinedComparison, UndefinedEnvironmentName):
            continue
        if applies:
            yield requirement
