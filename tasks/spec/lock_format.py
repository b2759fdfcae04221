"""machine.lock: the versions that machine.yaml resolved to. doit writes it; users commit it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError, model_validator

from .problems import Problem, SpecError, dotted

_MEND = "restore it from version control, or delete it, and the next run makes a new one"

Commit = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
PackageName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
Word = Annotated[str, StringConstraints(pattern=r"^[^\s-]\S*$")]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Archive(_Model):
    """An archive of the registry, which has the version `version` of the custom node `id`."""

    id: Word
    version: Word
    sha256: Sha256
    size: int
    """Bytes."""


class Pin(_Model):
    """A repository, the requested ref, and the commit that it resolved to.

    With `archive` it is one of the registry: `url` is the archive's address, `ref` the requested
    version, and `commit` what git makes of the archive's content.
    """

    url: str
    ref: str | None = None
    commit: Commit
    archive: Archive | None = None


class Package(_Model):
    """A Python package: from an index by its version, from a git repository, or from a URL."""

    version: Word | None = None
    git: Word | None = None
    commit: Commit | None = None
    subdirectory: Word | None = None
    url: Word | None = None
    sha256: tuple[Sha256, ...] = ()
    """Hashes of the files for this platform and Python; empty when the index has none."""
    size: int | None = None
    """Bytes of the wheel, None when the index doesn't say."""
    built: bool = False
    """Whether there is no wheel for this platform and Python, only the source."""

    @model_validator(mode="after")
    def _comes_from_somewhere(self) -> Package:
        if not (self.version or self.url or (self.git and self.commit)):
            raise ValueError("a package has a version, a url, or git and commit")
        return self

    def requirement(self, name: str) -> str:
        """The package's line in a requirements file, with hashes."""
        if self.git:
            below = f"#subdirectory={self.subdirectory}" if self.subdirectory else ""
            return f"{name} @ git+{self.git}@{self.commit}{below}"
        text = f"{name} @ {self.url}" if self.url else f"{name}=={self.version}"
        return " ".join([text, *(f"--hash=sha256:{digest}" for digest in self.sha256)])

    @property
    def from_source(self) -> bool:
        """Whether it has to be built before it can be installed."""
        return self.built or self.git is not None

    @property
    def shown(self) -> str:
        """The version, or the short commit, or the URL."""
        return self.version or (self.commit or self.url or "")[:12]


class Requirements(_Model):
    """Requirement lines by owner; constraints begin with `-c `."""

    comfyui: tuple[str, ...] = ()
    custom_nodes: dict[str, tuple[str, ...]] = {}


class Asked(_Model):
    """Everything that the Python set depends on: the same inputs give the same set."""

    python: str
    """Minor version, 3.11."""
    platform: str
    torch: str
    """The chosen build; never `auto`."""
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
    """Package → the one that replaces it, because both install the same files."""


class ModelPin(_Model):
    """A download: its URL, and the file that it gave the first time."""

    url: str
    download: Annotated[str, StringConstraints(pattern=r"^https?://[^\s${}]+$")] | None = None
    """The URL of exactly this version, if the host has one."""
    sha256: Sha256 | None = None
    """None: the next download sets it."""
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
    preferred: dict[PackageName, Package] = {}
    """Versions that the first resolution prefers, such as those of an installation that was
    adopted; it drops them."""
    catalogue: Pin | None = None
    """The lists that `import` looked in."""

    def text(self) -> str:
        """The file's content: sorted, one value per line, for readable diffs."""
        return json.dumps({"version": 1, **dumped(self)}, indent=1, sort_keys=True) + "\n"


def dumped(model: BaseModel) -> dict[str, Any]:
    """As plain JSON data, without defaults."""
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
        problem = "holds a merge conflict" if "<<<<<<<" in text else f"isn't JSON ({error.msg})"
        problem = problem if text.strip() else "is empty"
        raise SpecError([Problem(label, error.lineno, "", f"{problem}: {_MEND}")]) from None
    except RecursionError:
        raise SpecError([Problem(label, None, "", f"is nested too deeply: {_MEND}")]) from None
    except ValidationError as error:
        raise SpecError(
            Problem(label, None, dotted(detail["loc"]), f"{detail['msg']}: {_MEND}")
            for detail in error.errors()[:5]
        ) from None
