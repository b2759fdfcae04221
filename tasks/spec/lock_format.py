"""machine.lock: what machine.yaml was resolved to, written by doit and committed beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError, model_validator

from .problems import Loc, Problem, SpecError, dotted

_MEND = "restore it from version control, or delete it and doit makes it anew"

Commit = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
PackageName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
Word = Annotated[str, StringConstraints(pattern=r"^[^\s-]\S*$")]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Pin(_Model):
    """A repository: what was asked of it, and the commit that it was then."""

    url: str
    ref: str | None = None
    commit: Commit


class Package(_Model):
    """A Python package: from an index by its version, from a git repository, or from a URL."""

    version: Word | None = None
    git: Word | None = None
    commit: Commit | None = None
    subdirectory: Word | None = None
    url: Word | None = None
    sha256: tuple[Sha256, ...] = ()
    """Of the files that fit this platform and Python; empty when the index names none."""
    size: int | None = None
    """Bytes of the wheel, None when the index doesn't say."""
    built: bool = False
    """Its index or URL has no wheel for this platform and Python, only its source."""

    @model_validator(mode="after")
    def _comes_from_somewhere(self) -> Package:
        if not (self.version or self.url or (self.git and self.commit)):
            raise ValueError("a package has a version, a url, or git and commit")
        return self

    def requirement(self, name: str) -> str:
        """As a requirements file says it, hashes included."""
        if self.git:
            below = f"#subdirectory={self.subdirectory}" if self.subdirectory else ""
            return f"{name} @ git+{self.git}@{self.commit}{below}"
        what = f"{name} @ {self.url}" if self.url else f"{name}=={self.version}"
        return " ".join([what, *(f"--hash=sha256:{digest}" for digest in self.sha256)])

    @property
    def from_source(self) -> bool:
        """Whether it has to be built before it can be installed."""
        return self.built or self.git is not None

    @property
    def shown(self) -> str:
        """The version, or the short commit, or the URL."""
        return self.version or (self.commit or self.url or "")[:12]


class Requirements(_Model):
    """Who asks for what, line by line; constraints begin with `-c `."""

    comfyui: tuple[str, ...] = ()
    custom_nodes: dict[str, tuple[str, ...]] = {}


class Asked(_Model):
    """All that the Python set depends on. When this is the same, so is the set."""

    python: str
    """Minor version, 3.11."""
    platform: str
    torch: str
    """The build that was chosen: never `auto`."""
    packages: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    prefer: dict[str, str] = {}
    find_links: tuple[str, ...] = ()
    extra_index_urls: tuple[str, ...] = ()
    requirements: Requirements


class PythonSet(_Model):
    """The Python environment, package by package."""

    asked: Asked
    packages: dict[PackageName, Package]
    left_out: dict[str, str] = {}
    """Optional custom nodes whose requirements can't be met, and why."""
    reduced: dict[str, str] = {}
    """Packages that others replace, since they overwrite each other's files."""


class ModelPin(_Model):
    """A download: what was asked for, and what it gave when it was first seen."""

    url: str
    download: Annotated[str, StringConstraints(pattern=r"^https?://[^\s${}]+$")] | None = None
    """The address of just this version, where the host has one."""
    sha256: Sha256 | None = None
    """None: it is to be seen anew."""
    size: int | None = None
    """Bytes."""


class Lock(_Model):
    """The whole file."""

    version: Literal[1] = 1
    comfyui: Pin | None = None
    custom_nodes: dict[str, Pin] = {}
    python: PythonSet | None = None
    models: dict[str, ModelPin] = {}
    """By target."""

    def text(self) -> str:
        """Sorted, one value per line: made for diffs."""
        return json.dumps({"version": 1, **dumped(self)}, indent=1, sort_keys=True) + "\n"


def dumped(model: BaseModel) -> dict[str, Any]:
    """As plain JSON data, defaults left out."""
    return model.model_dump(mode="json", exclude_defaults=True)


def read_lock(file: Path, label: str) -> Lock:
    """Read a lock file; an empty Lock without one. Raises SpecError."""
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return Lock()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "is not UTF-8"
        raise SpecError([Problem(label, None, "", f"can't be read ({why}): {_MEND}")]) from None
    try:
        return Lock.model_validate(json.loads(text))
    except json.JSONDecodeError as error:
        what = "holds a merge conflict" if "<<<<<<<" in text else f"is no JSON ({error.msg})"
        what = what if text.strip() else "is empty"
        raise SpecError([Problem(label, error.lineno, "", f"{what}: {_MEND}")]) from None
    except RecursionError:
        raise SpecError([Problem(label, None, "", f"is nested too deeply: {_MEND}")]) from None
    except ValidationError as error:
        raise SpecError(list(_told(error, label))[:5]) from None


def _told(error: ValidationError, label: str) -> list[Problem]:
    return [
        Problem(label, None, dotted(_loc(found["loc"])), f"{found['msg']}: {_MEND}")
        for found in error.errors()
    ]


def _loc(loc: tuple[Any, ...]) -> Loc:
    return tuple(part for part in loc if isinstance(part, str | int))
