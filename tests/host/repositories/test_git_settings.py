"""No setting of the user's changes a checkout; how a repository is reached stays as he has it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from comfy_machine.host.repositories import git, git_settings, remotes
from comfy_machine.host.system import files
from comfy_machine.host.system.failure import Failure
from tests.forge import Forge

SETTINGS = """
[core]
    autocrlf = true
    eol = crlf
    safecrlf = true
    fileMode = false
    symlinks = false
    hooksPath = {folder}/hooks
    fsmonitor = {folder}/hooks/post-checkout
    attributesFile = {folder}/attributes
[init]
    templateDir = {folder}/template
    defaultObjectFormat = sha256
    defaultRefFormat = reftable
[commit]
    gpgsign = true
[gpg]
    program = /bin/false
[fetch]
    fsckObjects = true
    prune = true
[transfer]
    fsckObjects = true
[submodule]
    recurse = true
[diff]
    external = {folder}/hooks/post-checkout
    orderFile = {folder}/nowhere
    noprefix = true
    relative = true
[color]
    ui = always
    remote = always
[safe]
    bareRepository = explicit
[filter "upper"]
    smudge = tr a-z A-Z
    clean = tr A-Z a-z
    required = true
[filter "gone"]
    process = no-such-program
    required = true
[url "{forge}/"]
    insteadOf = https://forge.test/
"""


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def _user(tmp_path: Path, forge: Forge, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user whose git does everything otherwise."""
    folder = tmp_path / "user"
    for name in ("hooks", "template/hooks"):
        (folder / name).mkdir(parents=True)
        hook = folder / name / "post-checkout"
        hook.write_text(f"#!/bin/sh\necho ran >> {folder}/ran\n")
        hook.chmod(0o755)
    (folder / "attributes").write_text("* text eol=crlf\n*.up filter=upper\n")
    (folder / "config").write_text(SETTINGS.format(folder=folder, forge=forge.folder.as_uri()))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(folder / "config"))
    monkeypatch.setenv("GIT_DEFAULT_REF_FORMAT", "reftable")
    monkeypatch.setenv("GIT_LITERAL_PATHSPECS", "1")


CONTENT = {
    "unix": "a\nb\n",
    "dos.bat": "a\r\nb\r\n",
    "mixed": "a\r\nb\n",
    "x.up": "abc\n",
    "y.gone": "abc\n",
    ".gitattributes": "* text=auto\n*.up filter=upper\n*.gone filter=gone\n",
}


@pytest.mark.usefixtures("_user")
def test_a_checkout_has_the_bytes_of_its_repository_whatever_the_user_has_set(
    forge: Forge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as plain:
        plain.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
        plain.delenv("GIT_DEFAULT_REF_FORMAT")
        plain.delenv("GIT_LITERAL_PATHSPECS")
        repository = forge.repository("pack")
        for name, text in CONTENT.items():
            (repository.folder / name).write_bytes(text.encode())
        (repository.folder / "run").write_text("#!/bin/sh\n")
        (repository.folder / "run").chmod(0o755)
        (repository.folder / "link").symlink_to("unix")
        (repository.folder / "models").mkdir()
        (repository.folder / "models" / "kept").write_text("")
        (repository.folder / ".gitattributes").unlink()
        repository.commit({})
        (repository.folder / ".gitattributes").write_text(CONTENT[".gitattributes"])
        commit = repository.commit({})
    url = "https://forge.test/pack"
    assert remotes.resolve(url, None) == commit, "insteadOf still leads there"
    there = tmp_path / "there"
    remotes.checkout(url, commit, there)
    assert {name: (there / name).read_bytes().decode() for name in CONTENT} == CONTENT
    assert (there / "link").is_symlink()
    assert os.access(there / "run", os.X_OK)
    assert git.head(there) == commit
    assert git.edited(there) == []
    (there / "unix").write_text("edited")
    (there / "models" / "kept").write_text("edited")
    assert git.edited(there) == ["unix"]
    assert not (tmp_path / "user" / "ran").exists(), "no hook of the user's ran"
    assert not list(there.glob(".git/hooks/*"))


@pytest.mark.usefixtures("_user")
def test_a_snapshot_is_the_same_commit_whatever_the_user_has_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits = []
    for name in ("with", "without"):
        folder = tmp_path / name
        folder.mkdir()
        for file, text in CONTENT.items():
            (folder / file).write_bytes(text.encode())
        commits.append(git.snapshot(folder))
        monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    assert commits[0] == commits[1] == git.head(tmp_path / "with")


def test_how_ssh_is_called_is_the_users_to_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "BatchMode=yes" in git_settings.ssh()["GIT_SSH_COMMAND"]
    with monkeypatch.context() as one:
        one.setenv("GIT_SSH", "/usr/bin/plink")
        assert git_settings.ssh() == {}
    config = tmp_path / "other"
    config.write_text("[core]\n sshCommand = ssh -i key\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    assert git_settings.ssh() == {}


def test_a_workspace_of_another_owner_is_ours_all_the_same(
    forge: Forge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = forge.repository("pack", {"file": "one"})
    commit = remotes.resolve(repository.url, None)
    remotes.checkout(repository.url, commit, tmp_path / "first")
    repository.folder.rename(tmp_path / "gone")
    # git's own switch for its tests: every repository is somebody else's.
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    refused = subprocess.run(
        ["git", "status"], cwd=tmp_path / "first", capture_output=True, text=True
    )
    assert "dubious ownership" in refused.stderr
    remotes.checkout(repository.url, commit, tmp_path / "second")
    files.copy_tree(tmp_path / "second", tmp_path / "third")
    assert git.tracked(tmp_path / "third") == ["file"]
    assert git.edited(tmp_path / "third") == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_where_git_refuses_another_owner_he_is_named_with_the_mend(
    forge: Forge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = forge.repository("pack")
    for path in (repository.folder, repository.folder / ".git"):
        os.chown(path, 12345, -1)
    # As git before 2.38 has it: it takes safe.directory from the user's own files alone.
    monkeypatch.setitem(git_settings.SETTINGS, "safe.directory", "")
    with pytest.raises(Failure) as caught:
        git.tracked(repository.folder)
    assert str(caught.value) == (
        f"git can't read {repository.folder}: it belongs to user 12345, this is root: "
        "run doit as that user, or give yourself the workspace (chown -R 0 …)"
    )
    url = (tmp_path / "other").as_uri()
    repository.folder.rename(tmp_path / "other")
    with pytest.raises(Failure, match="fetched, it belongs to user 12345, this is root: git conf"):
        remotes.resolve(url, None)


@pytest.mark.parametrize("included", [False, True])
def test_looking_at_somebodys_checkout_runs_none_of_its_programs(
    forge: Forge, tmp_path: Path, included: bool
) -> None:
    repository = forge.repository("theirs.git")
    repository.commit({".gitattributes": "* filter=theirs\n", "file.txt": "before"})
    ran = tmp_path / "ran"
    config = repository.folder / ".git" / "config"
    if included:
        (tmp_path / "more").write_text("")
        repository.git("config", "include.path", str(tmp_path / "more"))
        config = tmp_path / "more"
    for key in ("clean", "process"):
        words = [
            "git",
            "config",
            "--file",
            str(config),
            f"filter.theirs.{key}",
            f"touch {ran}; cat",
        ]
        subprocess.run(words, check=True)
    (repository.folder / "file.txt").write_text("after")
    assert git.edited(repository.folder) == ["file.txt"]
    assert not ran.exists()


def test_a_pipe_in_the_place_of_head_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    os.mkfifo(tmp_path / ".git" / "HEAD")
    assert git.head(tmp_path) is None
