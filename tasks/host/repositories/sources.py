"""Sources: a repository's checkout at one commit, an archive's, or a copy of a local folder.

A source's receipt says which commit its ref resolved to. The checkout is
`sources/<name>@<commit>`; generations copy it and never run it in place.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ...spec import Pin
from ...spec.layout import Layout
from ..system import files
from ..system.failure import Failure
from ..system.program_files import PROGRAM
from ..system.progress import OnProgress, ignore_progress
from . import git, git_cache, remotes
from .lfs import Large

#: Folders of a local ComfyUI that are not copied: data, outputs and environments.
NOT_CODE = frozenset(
    "models output input temp user .venv venv .machine .pytest_cache .mypy_cache".split()
)
#: Suffixes in models/ that are not copied: ComfyUI has only small files there.
WEIGHTS = frozenset(".ckpt .pt .pt2 .bin .pth .safetensors .pkl .sft .gguf".split())
SUBMODULES = "+submodules"


@dataclass(frozen=True)
class Source:
    """A repository at a ref, a version of the registry, or a local folder."""

    name: str
    url: str | None
    path: Path | None
    ref: str | None
    """With `id`, the requested version."""
    recursive: bool
    receipt: Path
    layout: Layout
    locked: Pin | None = None
    """Its entry in machine.lock."""
    must_be_locked: bool = False
    update: bool = False
    """Whether to move to the newest commit, even if a commit is locked."""
    id: str | None = None
    """Its id in the registry."""
    registry: str = ""
    """The registry's address."""

    def read(self) -> dict[str, Any]:
        """The receipt: `asked` and `commit`; `content` of a local folder; `large` files; `url` and
        `archive` of the registry, and `deprecated`."""
        return files.read_receipt(self.layout.read_path(self.receipt), asked=dict, commit=str)

    @property
    def pin(self) -> Pin | None:
        """The lock's entry, if it has the requested URL and ref."""
        pin = self.locked
        return pin if pin and self._fits(pin) else None

    def _fits(self, pin: Pin) -> bool:
        if self.id:
            return pin.archive is not None and (pin.archive.id, pin.ref) == (self.id, self.ref)
        return pin.archive is None and (pin.url, pin.ref) == (self.url, self.ref)

    @property
    def found(self) -> Pin | None:
        """What the receipt says that the request resolved to; None: nothing, or a local folder."""
        receipt = self.read()
        if not receipt or self.path:
            return None
        more = {"archive": receipt.get("archive"), "url": receipt.get("url")} if self.id else {}
        try:
            given = {"url": self.url, "ref": self.ref, "commit": receipt["commit"], **more}
            return Pin.model_validate(given)
        except ValueError:
            return None

    @property
    def shown(self) -> str:
        """The version of the registry that it is at, else the short commit."""
        archive = self.found.archive if self.id and self.found else None
        return archive.version if archive else str(self.read().get("commit", ""))[:12]

    @property
    def wanted(self) -> str:
        """The request, for messages."""
        if self.id:
            return f"{self.id} {self.ref or 'in its newest version'} of the registry"
        return f"{self.url or self.path} at {self.ref or 'its own branch'}"

    @property
    def commit(self) -> str | None:
        """The resolved commit of the request: the lock's, else the receipt's."""
        if self.pin:
            return self.pin.commit
        receipt = self.read()
        return receipt["commit"] if receipt.get("asked") == self.asked else None

    @property
    def asked(self) -> dict[str, Any]:
        """What machine.yaml requests; when this changes, the commit is resolved again."""
        if self.path:
            return {"path": str(self.path)}
        if self.id:
            return {"id": self.id, "version": self.ref}
        return {"url": self.url, "ref": self.ref}

    def checkout(self, commit: str) -> Path:
        """The folder of a commit's checkout, with submodules if it has any and they are wanted."""
        plain = self.layout.read_path(self.layout.sources / f"{self.name}@{commit}")
        with_submodules = self._with_submodules(commit)
        if self.recursive and (with_submodules.exists() or git.lacks_submodules(plain)):
            return with_submodules
        return plain

    def _with_submodules(self, commit: str) -> Path:
        return self.layout.read_path(self.layout.sources / f"{self.name}@{commit}{SUBMODULES}")

    def version(self) -> list[object]:
        """What its checkout consists of, for digests."""
        commit = self.read().get("commit")
        has_submodules = self.checkout(str(commit)).name.endswith(SUBMODULES)
        return [commit, has_submodules, *(["lfs"] if self.large.fetched else [])]

    @property
    def large(self) -> Large:
        """Its large files, as of the last fetch."""
        recorded = self.read().get("large")
        try:
            return Large(**recorded) if isinstance(recorded, dict) else Large()
        except TypeError:
            return Large()

    @property
    def _lfs_was_installed(self) -> bool:
        """Whether git-lfs was missing at the last fetch and is installed now."""
        large = self.large
        return bool(large.left) and not large.why and shutil.which("git-lfs") is not None

    def why_not_there(self) -> str | None:
        """Why the checkout has to be fetched; None: it is there."""
        if self.update and not self.path:
            if self.id:
                return f"{self.name} moves to the newest version of the registry"
            return f"{self.name} moves to the newest commit of {self.ref or 'its branch'}"
        if self._not_locked:
            return self._not_locked
        receipt = self.read()
        if receipt.get("asked") != self.asked:
            return f"{self.name} was not fetched yet, or its entry changed"
        commit = str(receipt.get("commit"))
        if self.pin and self.pin.commit != commit:
            return f"{self.name} is at {commit[:12]}, machine.lock names {self.pin.commit[:12]}"
        head = git.head(self.checkout(commit))
        if head != commit:
            return f"sources/{self.name}@{commit[:12]} is at {head or 'no commit'}"
        if self._lfs_was_installed:
            return f"its Git LFS files can be fetched now: {', '.join(list(self.large.left)[:3])}"
        if self.path and receipt.get("content") != files.tree_digest(self.path, _code(self.path)):
            return f"{self.path} changed"
        return None

    def checkouts(self) -> list[Path]:
        """All its checkouts."""
        return sorted(self.layout.sources.glob(f"{self.name}@*"))

    @property
    def _not_locked(self) -> str | None:
        if not self.must_be_locked or self.path or self.pin:
            return None
        entry = "doesn't name it"
        if pin := self.locked:
            archive = pin.archive
            other = replace(self, url=pin.url, ref=pin.ref, id=archive.id if archive else None)
            entry = f"has it as {other.wanted}"
        return (
            f"machine.lock {entry}, and machine.yaml asks for {self.wanted}: run {PROGRAM} lock "
            "without locked=1, and commit the lock"
        )

    def obtain(self, log: Path, on_progress: OnProgress = ignore_progress) -> None:
        """Fetch it and write the receipt; calls `on_progress` during a fetch. Raises Failure."""
        if self.path:
            self._copy(self.path)
            return
        if self._not_locked:
            raise Failure(self._not_locked)
        if self.id:
            self._unpack(self.id, on_progress)
            return
        assert self.url is not None
        commit = None if self.update else self.commit
        commit = commit or remotes.resolve(self.url, self.ref, on_progress)
        target, large = self.checkout(commit), self.large
        again = self._lfs_was_installed or (self.update and bool(large.left))
        if again or git.head(target) != commit:
            refuse_edited(target, self.name)
            large = self._check_out(self.url, commit, on_progress)
        elif self.read().get("commit") != commit:
            large = Large()
        self._record(asked=self.asked, commit=commit, **({"large": asdict(large)} if large else {}))

    def _unpack(self, name: str, on_progress: OnProgress) -> None:
        """The same for a version of the registry. A version never changes, so one that is known by
        its number and address isn't downloaded again."""
        from ..registry.registry_api import Registry
        from . import archives

        registry, known = Registry(self.registry), self.pin or self._known
        got = archives.Obtained(known) if known and not self.update else None
        got = got or archives.resolve(registry, name, self.ref, known or self.locked, on_progress)
        pin, target = got.pin, self.checkout(got.pin.commit)
        if git.head(target) != pin.commit:
            refuse_edited(target, self.name)
            archives.ensure(registry, pin, on_progress)
            remotes.checkout(pin.url, pin.commit, self.layout.write_path(target))
        self._record(
            asked=self.asked, commit=pin.commit, url=pin.url,
            archive=pin.archive.model_dump() if pin.archive else None, deprecated=got.deprecated,
        )  # fmt: skip

    @property
    def _known(self) -> Pin | None:
        """What the request resolved to before, if it is the same request."""
        return self.found if self.read().get("asked") == self.asked else None

    def _check_out(self, url: str, commit: str, on_progress: OnProgress) -> Large:
        try:
            recursive = self.recursive and remotes.has_submodules(url, commit, on_progress)
            target = self._with_submodules(commit) if recursive else self.checkout(commit)
            target = self.layout.write_path(target)
            return remotes.checkout(
                url, commit, target, recursive=recursive, on_progress=on_progress
            )
        except git_cache.NoSuchCommit as error:
            if self.pin is None:
                raise
            raise Failure(
                f"{url} no longer has {commit[:12]}, which machine.lock names: "
                f"{PROGRAM} update {self.name}"
            ) from error

    def _record(self, **receipt: object) -> None:
        files.write_receipt(self.layout.write_path(self.receipt), receipt)

    def _copy(self, path: Path) -> None:
        if not (path / "main.py").is_file():
            raise Failure(f"{path} isn't ComfyUI, it has no main.py: correct comfyui.path")
        content = files.tree_digest(path, _code(path))
        staging = self.layout.write_path(self.layout.sources / f".{self.name}.part")
        with files.removed_on_failure(staging):
            for relative in _code(path):
                files.copy_file(path / relative, staging / relative)
            commit = git.snapshot(staging)
            files.sync(staging)
            files.replace(staging, self.layout.write_path(self.checkout(commit)))
        self._record(asked=self.asked, commit=commit, content=content)


def _code(folder: Path) -> Iterator[Path]:
    """The files of a local ComfyUI that are copied: sorted, relative to it."""
    yield from files.walk(folder, NOT_CODE)
    for relative in files.walk(folder / "models"):
        if relative.suffix not in WEIGHTS:
            yield Path("models") / relative


def refuse_edited(checkout: Path, name: str) -> None:
    """Raises Failure, naming the files, when tracked files of `checkout` were edited by hand. What
    git can't read is damaged, and is replaced."""
    if git.head(checkout) is None:
        return
    try:
        edited = git.edited(checkout)
    except Failure:
        if git.owner(checkout):
            raise
        return
    if edited:
        shown = ", ".join(edited[:5]) + (" …" if len(edited) > 5 else "")
        raise Failure(
            f"{name} was edited by hand and would be replaced: {shown}; keep the edits in a fork, "
            f"or drop them with: git -C {checkout} checkout -- ."
        )
