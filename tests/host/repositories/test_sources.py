"""Sources: which checkout serves what is asked for."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from comfy_machine.host.repositories import git, remotes
from comfy_machine.host.repositories.sources import Source
from comfy_machine.spec.layout import Layout
from tests.forge import Forge, Repository


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("GIT_ALLOW_PROTOCOL", "file")


def source(tmp_path: Path, repository: Repository, *, recursive: bool = True) -> Source:
    layout = Layout(tmp_path / "ws")
    receipt = layout.receipts / "nodes" / "pack.json"
    return Source("pack", repository.url, None, None, recursive, receipt, layout)


def checkouts(of: Source) -> list[str]:
    return [path.name.partition("@")[2].partition("+")[2] for path in of.checkouts()]


def test_a_checkout_of_before_serves_where_its_commit_names_no_submodules(
    forge: Forge, tmp_path: Path
) -> None:
    """As a machine has it that was made when submodules had to be asked for, or were."""
    # Some name submodules that they have no more.
    named = '[submodule "lib"]\n path = lib\n url = https://forge.test/gone\n'
    repository = forge.repository("pack", {".gitmodules": named, "code.py": "code"})
    for asked in (False, True):
        of = source(tmp_path / str(asked), repository, recursive=asked)
        of.obtain(tmp_path / "log")
        version = of.version()
        if asked:
            (there,) = of.checkouts()
            there.rename(there.with_name(f"{there.name}+submodules"))
            version = [version[0], True]
        now = replace(of, recursive=True)
        repository.folder.rename(tmp_path / "offline")
        assert now.why_not_there() is None
        now.obtain(tmp_path / "log")
        assert (now.version(), len(now.checkouts())) == (version, 1)
        (tmp_path / "offline").rename(repository.folder)


def test_a_checkout_of_before_does_not_serve_where_its_submodules_are_missing(
    forge: Forge, tmp_path: Path
) -> None:
    inner = forge.repository("inner", {"code.py": "code"})
    repository = forge.repository("pack")
    repository.git("submodule", "--quiet", "add", inner.url, "lib")
    repository.commit({})
    plain = source(tmp_path, repository, recursive=False)
    plain.obtain(tmp_path / "log")
    of = source(tmp_path, repository)
    assert of.why_not_there() is not None
    of.obtain(tmp_path / "log")
    assert checkouts(of) == ["", "submodules"]
    commit = repository.git("rev-parse", "HEAD")
    assert (of.checkout(commit) / "lib" / "code.py").read_text() == "code"
    assert (of.version(), plain.version()) == ([commit, True], [commit, False])
    for repository_ in (repository, inner):
        repository_.folder.rename(tmp_path / repository_.folder.name)
    assert of.why_not_there() is None


LFS = """#!/bin/sh
# As much of git-lfs as serves `git lfs fetch`: what the remote has by sha256, into the storage.
[ "$1" = fetch ] || exit 1
url=$(git remote get-url "$2") storage=$(git config lfs.storage)
for oid in $(git grep -ah '^oid sha256:' | sed 's/^oid sha256://'); do
    place=$storage/objects/$(echo $oid | cut -c1-2)/$(echo $oid | cut -c3-4)
    mkdir -p $place
    cp "${url#file://}/.git/objects-of-lfs/$oid" $place && continue
    echo "error: $oid: no quota" >&2
    exit 2
done
"""
CONTENT = "weights " * 1000


def pointer(content: str) -> str:
    digest = hashlib.sha256(content.encode()).hexdigest()
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {len(content)}\n"


@pytest.fixture
def pack(forge: Forge) -> Repository:
    """A repository as a host has it whose large files are elsewhere."""
    repository = forge.repository(
        "pack",
        {"weights/net.pth": pointer(CONTENT), ".gitattributes": "*.pth filter=lfs -text\n",
         "code.py": "code"},
    )  # fmt: skip
    objects = repository.folder / ".git" / "objects-of-lfs"
    objects.mkdir()
    name = pointer(CONTENT).split("sha256:")[1].split("\n")[0]
    (objects / name).write_text(CONTENT)
    return repository


def install_lfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bin" / "git-lfs"
    program.parent.mkdir()
    program.write_text(LFS)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")


@pytest.fixture
def required_lfs(pack: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's settings as `git lfs install` leaves them; git-lfs was removed since."""
    config = tmp_path / "gitconfig"
    for key, value in (("clean", "git-lfs clean -- %f"), ("smudge", "git-lfs smudge -- %f"),
                       ("process", "git-lfs filter-process"), ("required", "true")):  # fmt: skip
        subprocess.run(["git", "config", "--file", config, f"filter.lfs.{key}", value], check=True)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))


@pytest.mark.usefixtures("required_lfs")
def test_without_git_lfs_the_large_files_are_named_and_come_once_it_is_there(
    pack: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = source(tmp_path, pack)
    of.obtain(tmp_path / "log")
    commit = pack.git("rev-parse", "HEAD")
    file = of.checkout(commit) / "weights" / "net.pth"
    assert file.read_text() == pointer(CONTENT)
    assert str(of.large) == ("1 file is a Git LFS pointer only, 8 kB are missing: weights/net.pth")
    assert "apt install git-lfs" in of.large.mend
    assert of.why_not_there() is None, "a second run has nothing to do"
    before = of.version()
    install_lfs(tmp_path, monkeypatch)
    assert of.why_not_there() == "its Git LFS files can be fetched now: weights/net.pth"
    of.obtain(tmp_path / "log")
    assert file.read_text() == CONTENT
    assert of.why_not_there() is None
    assert of.version() != before, "a generation that has only pointers is another one"


@pytest.mark.usefixtures("required_lfs")
def test_large_files_in_place_of_their_pointers_are_no_edits(
    pack: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_lfs(tmp_path, monkeypatch)
    of = source(tmp_path, pack)
    of.obtain(tmp_path / "log")
    commit = pack.git("rev-parse", "HEAD")
    there = of.checkout(commit)
    assert git.edited(there) == []
    shutil.rmtree(pack.folder / ".git" / "objects-of-lfs")
    (program,) = (tmp_path / "bin").iterdir()
    program.unlink()
    remotes.checkout(pack.url, commit, tmp_path / "again")
    assert (tmp_path / "again" / "weights" / "net.pth").read_text() == CONTENT, "it is in the cache"
    (there / "weights" / "net.pth").write_text("edited")
    assert git.edited(there) == ["weights/net.pth"]


def test_large_files_that_their_host_does_not_give_are_named_once(
    pack: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_lfs(tmp_path, monkeypatch)
    for each in (pack.folder / ".git" / "objects-of-lfs").iterdir():
        each.unlink()
    of = source(tmp_path, pack)
    of.obtain(tmp_path / "log")
    assert list(of.large.left) == ["weights/net.pth"]
    assert "no quota" in of.large.mend
    assert of.why_not_there() is None
