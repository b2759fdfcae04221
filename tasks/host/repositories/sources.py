"""Sources: each repository's checkout at its commit, or the content of a local folder.

A source's receipt says which commit its ref was resolved to; the checkout lies at
`sources/<name>@<commit>` and is copied from there, never run in place.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...spec import Pin
from ...spec.layout import Layout
from ..system import files
from ..system.failure import Failure
from ..system.progress import Told, unheard
from . import git, git_cache, remotes
from .lfs import Large

#: Of a local ComfyUI folder these stay behind: they are data, outputs and environments.
NOT_CODE = frozenset(
    "models output input temp user .venv venv .machine .pytest_cache .mypy_cache".split()
)
#: ComfyUI brings small files in models/; weights that lie beside them are the user's.
WEIGHTS = frozenset(
    [".ckpt", ".pt", ".pt2", ".bin", ".pth", ".safetensors", ".pkl", ".sft", ".gguf"]
)


SUBMODULES = "+submodules"


@dataclass(frozen=True)
class Source:
    """A repository at a ref, or a local folder that is copied as it is now."""

    name: str
    url: str | None
    path: Path | None
    ref: str | None
    recursive: bool
    receipt: Path
    layout: Layout
    locked: Pin | None = None
    """What machine.lock says of it."""
    must_be_locked: bool = False
    update: bool = False
    """Move to the newest commit, whatever is known."""

    def read(self) -> dict[str, Any]:
        """The receipt: `asked`, `commit`, for a local folder `content`, and `large` files."""
        return files.read_receipt(self.layout.seen(self.receipt), asked=dict, commit=str)

    @property
    def pin(self) -> Pin | None:
        """The lock's entry, if it is of what machine.yaml asks for."""
        pin = self.locked
        return pin if pin and (pin.url, pin.ref) == (self.url, self.ref) else None

    @property
    def commit(self) -> str | None:
        """The commit that is known for what is asked: the lock's, else the receipt's."""
        if self.pin:
            return self.pin.commit
        receipt = self.read()
        return receipt["commit"] if receipt.get("asked") == self.asked else None

    @property
    def asked(self) -> dict[str, Any]:
        """What machine.yaml says of it; when this changes, the commit is resolved anew."""
        if self.path:
            return {"path": str(self.path)}
        return {"url": self.url, "ref": self.ref}

    def checkout(self, commit: str) -> Path:
        """Where the commit is, or will be. One that has no submodules is whole without them."""
        plain = self.layout.seen(self.layout.sources / f"{self.name}@{commit}")
        whole = self._whole(commit)
        if self.recursive and (whole.exists() or git.lacks_submodules(plain)):
            return whole
        return plain

    def _whole(self, commit: str) -> Path:
        return self.layout.seen(self.layout.sources / f"{self.name}@{commit}{SUBMODULES}")

    def version(self) -> list[object]:
        """What its checkout is made of: a digest of it changes when that does."""
        receipt = self.read()
        commit = receipt.get("commit")
        whole = self.checkout(str(commit)).name.endswith(SUBMODULES)
        return [commit, whole, *(["lfs"] if self.large.fetched else [])]

    @property
    def large(self) -> Large:
        """What became of its large files when it was fetched."""
        found = self.read().get("large")
        try:
            return Large(**found) if isinstance(found, dict) else Large()
        except TypeError:
            return Large()

    @property
    def _comes_now(self) -> bool:
        """Whether git-lfs was missing when it was fetched, and is there now."""
        left = self.large
        return bool(left.left) and not left.why and shutil.which("git-lfs") is not None

    def why_not_there(self) -> str | None:
        """None when the checkout is there at its commit, else a sentence."""
        if self.update and not self.path:
            return f"{self.name} is to move to the newest commit of {self.ref or 'its branch'}"
        if self._not_locked:
            return self._not_locked
        receipt = self.read()
        if receipt.get("asked") != self.asked:
            return f"{self.name} was not fetched yet, or its entry changed"
        commit = str(receipt.get("commit"))
        if self.pin and self.pin.commit != commit:
            return f"{self.name} is at {commit[:12]}, machine.lock names {self.pin.commit[:12]}"
        at = git.head(self.checkout(commit))
        if at != commit:
            return f"sources/{self.name}@{commit[:12]} is at {at or 'no commit'}"
        if self._comes_now:
            return f"its Git LFS files can be fetched now: {', '.join(list(self.large.left)[:3])}"
        if self.path and receipt.get("content") != files.tree_digest(self.path, _code(self.path)):
            return f"{self.path} changed"
        return None

    def checkouts(self) -> list[Path]:
        """Every checkout of it. The receipt, which keeps the commit, is not among them."""
        return sorted(self.layout.sources.glob(f"{self.name}@*"))

    @property
    def _not_locked(self) -> str | None:
        if not self.must_be_locked or self.path or self.pin:
            return None
        has = "doesn't name it"
        if self.locked:
            has = f"has it as {self.locked.url} at {self.locked.ref or 'its own branch'}"
        return (
            f"machine.lock {has}, and machine.yaml asks for {self.url} at "
            f"{self.ref or 'its own branch'}: run doit lock without locked=1, and commit the lock"
        )

    def obtain(self, log: Path, told: Told = unheard) -> None:
        """Fetch it and write the receipt; `told` hears how far that is. Raises Failure."""
        if self.path:
            self._copy(self.path)
            return
        assert self.url is not None
        if self._not_locked:
            raise Failure(self._not_locked)
        commit = None if self.update else self.commit
        commit = commit or remotes.resolve(self.url, self.ref, told)
        target, found = self.checkout(commit), self.large
        again = self._comes_now or (self.update and bool(found.left))
        if again or git.head(target) != commit:
            refuse_edited(target, self.name)
            found = self._check_out(self.url, commit, told)
        elif self.read().get("commit") != commit:
            found = Large()
        self._note(asked=self.asked, commit=commit, **({"large": asdict(found)} if found else {}))

    def _check_out(self, url: str, commit: str, told: Told) -> Large:
        try:
            deep = self.recursive and remotes.has_submodules(url, commit, told)
            target = self._whole(commit) if deep else self.checkout(commit)
            target = self.layout.kept(target)
            return remotes.checkout(url, commit, target, recursive=deep, told=told)
        except git_cache.NoSuchCommit as gone:
            if self.pin is None:
                raise
            raise Failure(
                f"{url} no longer has {commit[:12]}, which machine.lock names: "
                f"doit update {self.name}"
            ) from gone

    def _note(self, **receipt: object) -> None:
        files.write_receipt(self.layout.kept(self.receipt), receipt)

    def _copy(self, path: Path) -> None:
        if not (path / "main.py").is_file():
            raise Failure(f"{path} isn't ComfyUI, it has no main.py: correct comfyui.path")
        content = files.tree_digest(path, _code(path))
        staging = self.layout.kept(self.layout.sources / f".{self.name}.part")
        with files.removed_on_failure(staging):
            for relative in _code(path):
                files.copy_file(path / relative, staging / relative)
            commit = git.snapshot(staging)
            files.replace(staging, self.layout.kept(self.checkout(commit)))
        self._note(asked=self.asked, commit=commit, content=content)


def _code(folder: Path) -> Iterator[Path]:
    """The files of a local ComfyUI that belong to a copy of it, relative to it, sorted."""
    yield from files.walk(folder, NOT_CODE)
    for relative in files.walk(folder / "models"):
        if relative.suffix not in WEIGHTS:
            yield Path("models") / relative


def refuse_edited(checkout: Path, name: str) -> None:
    """Raises Failure, naming the files, when tracked files of `checkout` were edited by hand."""
    if git.head(checkout) is None:
        return
    edited = git.edited(checkout)
    if edited:
        shown = ", ".join(edited[:5]) + (" …" if len(edited) > 5 else "")
        raise Failure(
            f"{name} was edited by hand and would be replaced: {shown}; keep the edits in a fork, "
            f"or drop them with: git -C {checkout} checkout -- ."
        )
