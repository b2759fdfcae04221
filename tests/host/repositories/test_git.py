"""Repositories: real ones, by their file:// URL."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from comfy_machine.host.repositories import git, git_cache, remotes
from comfy_machine.host.system import files
from comfy_machine.host.system.failure import Failure
from tests.forge import Forge, Repository


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def repository(forge: Forge) -> Repository:
    """Two commits on main, the first tagged `light` and (annotated) `v1`; one on `side`."""
    found = forge.repository("Some-Pack", {"file": "one"})
    found.git("tag", "light")
    found.git("tag", "-a", "v1", "-m", "version 1")
    found.git("branch", "feature/main")
    found.git("checkout", "--quiet", "-b", "side")
    found.commit({"file": "side"})
    found.git("checkout", "--quiet", "main")
    found.commit({"file": "two"})
    return found


def test_a_fetch_tells_how_far_it_is(forge: Forge, tmp_path: Path) -> None:
    few: dict[str, str | None] = {str(number): os.urandom(2000).hex() for number in range(20)}
    repository = forge.repository("pack", few)
    heard: list[tuple[float | None, str]] = []
    commit = remotes.resolve(repository.url, None, lambda *far: heard.append(far))
    assert heard == [], "nothing is fetched to know the commit"
    remotes.checkout(
        repository.url, commit, tmp_path / "out", on_progress=lambda *far: heard.append(far)
    )
    assert (None, "counting objects") in heard
    shares = [percent or 0 for percent, words in heard if words.startswith("receiving objects")]
    assert shares == sorted(shares)
    assert 0 < shares[1] < 20
    assert shares[-1] == 90, "what is left is for the deltas"
    assert re.fullmatch(r"receiving objects, [\d.]+ KiB \| [\d.]+ MiB/s", heard[-1][1])


def test_what_git_says_of_its_progress_is_no_part_of_why_it_failed(repository: Repository) -> None:
    bare = git.command(repository.folder)
    with pytest.raises(git.error_type()) as caught:
        git.fetch(bare, "--", repository.url, "main", "no-such-branch", on_progress=lambda *_: None)
    assert git.gist(caught.value) == "fatal: couldn't find remote ref no-such-branch"


def only_as_an_ancestor(repository: Repository) -> str:
    """Leave main alone; its first commit, which is now the tip of no branch or tag."""
    repository.git("tag", "--delete", "light", "v1")
    repository.git("branch", "--delete", "--force", "feature/main", "side")
    return repository.git("rev-parse", "main~1")


@pytest.mark.parametrize(
    ("ref", "same"),
    [(None, "main"), ("main", "main"), ("side", "side"), ("feature/main", "v1^{commit}"),
     ("light", "light^{commit}"), ("v1", "v1^{commit}"), ("refs/heads/side", "side")],
)  # fmt: skip
def test_a_branch_tag_or_default_is_resolved_to_its_commit(
    repository: Repository, ref: str | None, same: str
) -> None:
    assert remotes.resolve(repository.url, ref) == repository.git("rev-parse", same)


def test_a_tag_wins_over_a_branch_of_its_name(repository: Repository) -> None:
    repository.git("tag", "side", "main")
    assert remotes.resolve(repository.url, "side") == repository.git("rev-parse", "main")


def test_a_whole_commit_in_any_case_and_a_tag_object_are_resolved(repository: Repository) -> None:
    commit = repository.git("rev-parse", "HEAD")
    repository.git("tag", "--annotate", "-m", "a tag", "annotated")
    tag_object = repository.git("rev-parse", "annotated")
    assert tag_object != commit
    for ref in (commit, commit.upper(), tag_object):
        assert remotes.resolve(repository.url, ref) == commit


def test_an_abbreviated_commit_is_resolved_also_off_the_branches_tips(
    repository: Repository,
) -> None:
    first = only_as_an_ancestor(repository)
    assert remotes.resolve(repository.url, first[:8]) == first


def test_an_abbreviated_commit_is_resolved_with_a_shallow_cache(
    repository: Repository, tmp_path: Path
) -> None:
    first = only_as_an_ancestor(repository)
    remotes.checkout(repository.url, remotes.resolve(repository.url, "main"), tmp_path / "there")
    assert remotes.resolve(repository.url, first[:8]) == first


@pytest.mark.parametrize("ref", ["nosuch", "v1.0", "deadbeef"])
def test_a_ref_that_is_not_there_is_named(repository: Repository, ref: str) -> None:
    with pytest.raises(Failure) as caught:
        remotes.resolve(repository.url, ref)
    assert str(caught.value) == (
        f"{repository.url} has no branch, tag or commit {ref!r}: correct ref"
    )


def test_a_commit_that_is_not_there_is_named_and_leaves_no_folder(
    repository: Repository, tmp_path: Path
) -> None:
    commit = "0123456789" * 4
    with pytest.raises(Failure, match=f"has no commit {commit}: correct ref"):
        remotes.checkout(repository.url, commit, tmp_path / "there")
    assert not (tmp_path / "there").exists()


def test_a_repository_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    url = (tmp_path / "nothing").as_uri()
    with pytest.raises(Failure, match="isn't there: correct the url") as caught:
        remotes.resolve(url, "main")
    assert url in str(caught.value)
    assert "\n" not in str(caught.value)


class Refusing(BaseHTTPRequestHandler):
    """A forge that wants a password for /private and knows nothing else."""

    def do_GET(self) -> None:
        private = self.path.startswith("/private")
        self.send_response(401 if private else 404)
        if private:
            self.send_header("WWW-Authenticate", 'Basic realm="x"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def refusing() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_private_repository_is_told_from_an_absent_one_and_asks_nobody(refusing: str) -> None:
    with pytest.raises(Failure, match="or it is private: correct the url, or give git credent"):
        remotes.resolve(f"{refusing}/private/x.git", "main")
    with pytest.raises(Failure, match="isn't there: correct the url") as caught:
        remotes.resolve(f"{refusing}/absent/x.git", "main")
    assert "private" not in str(caught.value)


def test_a_checkout_is_detached_shallow_and_its_own(repository: Repository, tmp_path: Path) -> None:
    commit = remotes.resolve(repository.url, "main")
    there = Repository(tmp_path / "there")
    remotes.checkout(repository.url, commit, there.folder)
    assert git.head(there.folder) == commit == there.git("rev-parse", "HEAD")
    assert there.git("rev-list", "--count", "HEAD") == "1"
    assert there.git("remote", "get-url", "origin") == repository.url
    assert not (there.folder / ".git" / "objects" / "info" / "alternates").exists()
    assert (there.folder / "file").read_text() == "two"
    assert git.edited(there.folder) == []
    (cache,) = git_cache.folder().glob("Some-Pack-*.git")
    assert Repository(cache).git("rev-list", "--count", commit) == "1"


def test_a_checkout_replaces_what_is_there(repository: Repository, tmp_path: Path) -> None:
    there = tmp_path / "there"
    for ref in ("main", "side"):
        remotes.checkout(repository.url, remotes.resolve(repository.url, ref), there)
        (there / "untracked").write_text("x")
    remotes.checkout(repository.url, remotes.resolve(repository.url, "main"), there)
    assert sorted(path.name for path in there.iterdir()) == [".git", "file"]


def test_what_was_fetched_once_is_there_when_the_repository_is_gone(
    repository: Repository, tmp_path: Path
) -> None:
    commit = remotes.resolve(repository.url, "v1")
    remotes.checkout(repository.url, commit, tmp_path / "first")
    repository.folder.rename(tmp_path / "gone")
    remotes.checkout(repository.url, commit, tmp_path / "second")
    assert git.head(tmp_path / "second") == commit


def test_a_fetch_that_was_killed_half_way_is_made_good(
    repository: Repository, tmp_path: Path
) -> None:
    remotes.checkout(repository.url, remotes.resolve(repository.url, "main"), tmp_path / "there")
    (cache,) = git_cache.folder().glob("Some-Pack-*.git")
    (cache / "HEAD").unlink()
    remotes.checkout(repository.url, remotes.resolve(repository.url, "side"), tmp_path / "there")
    assert (tmp_path / "there" / "file").read_text() == "side"


def settings(patch: pytest.MonkeyPatch, **values: str) -> None:
    """Give settings to every git of this process, through the environment."""
    patch.setenv("GIT_CONFIG_COUNT", str(len(values)))
    for number, (key, value) in enumerate(values.items()):
        patch.setenv(f"GIT_CONFIG_KEY_{number}", key.replace("_", "."))
        patch.setenv(f"GIT_CONFIG_VALUE_{number}", value)


@pytest.mark.parametrize("shallow_before", [False, True])
def test_a_server_that_serves_no_single_commit_is_fetched_whole(
    repository: Repository,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    shallow_before: bool,
) -> None:
    repository.git("config", "uploadpack.allowAnySHA1InWant", "false")
    settings(monkeypatch, protocol_version="0")
    if shallow_before:
        remotes.checkout(repository.url, repository.git("rev-parse", "main"), tmp_path / "tip")
    first = only_as_an_ancestor(repository)
    refused = subprocess.run(
        ["git", "fetch", "--depth=1", repository.url, first],
        cwd=Forge(tmp_path).repository("probe").folder,
        capture_output=True,
        text=True,
    )
    assert "not advertised" in refused.stderr or "unadvertised" in refused.stderr, refused.stderr
    remotes.checkout(repository.url, first, tmp_path / "there")
    assert git.head(tmp_path / "there") == first
    assert (tmp_path / "there" / "file").read_text() == "one"


def test_submodules_come_along_only_when_asked_for(
    forge: Forge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # git clones submodules from file:// only when it is told to
    settings(monkeypatch, protocol_file_allow="always")
    inner = forge.repository("inner", {"deep": "inner"})
    outer = forge.repository("outer")
    outer.git("submodule", "--quiet", "add", inner.url, "lib/inner")
    commit = outer.commit({"file": "outer"})
    remotes.checkout(outer.url, commit, tmp_path / "plain")
    assert not (tmp_path / "plain" / "lib" / "inner" / "deep").exists()
    remotes.checkout(outer.url, commit, tmp_path / "whole", recursive=True)
    assert (tmp_path / "whole" / "lib" / "inner" / "deep").read_text() == "inner"
    assert "lib/inner/deep" in git.tracked(tmp_path / "whole")


def test_a_submodule_that_cannot_be_fetched_is_a_failure_and_leaves_no_folder(
    forge: Forge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings(monkeypatch, protocol_file_allow="always")
    inner = forge.repository("inner")
    outer = forge.repository("outer")
    outer.git("submodule", "--quiet", "add", inner.url, "inner")
    commit = outer.commit({})
    inner.folder.rename(tmp_path / "gone")
    with pytest.raises(Failure) as caught:
        remotes.checkout(outer.url, commit, tmp_path / "there", recursive=True)
    assert str(caught.value).startswith(
        f"submodule inner of {outer.url}: {inner.url} isn't there: correct the url"
    )
    assert str(caught.value).endswith("; without submodules: recursive: false")
    assert not (tmp_path / "there").exists()


def test_submodules_of_submodules_are_there_again_when_every_repository_is_gone(
    forge: Forge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings(monkeypatch, protocol_file_allow="always")
    deep = forge.repository("deep", {"file": "deep"})
    middle = forge.repository("middle", {"file": "middle"})
    outer = forge.repository("outer")
    middle.git("submodule", "--quiet", "add", deep.url, "in/deep")
    # relative, as `../deep.git` is in many a repository: to the URL of the one that names it
    middle.git("config", "--file", ".gitmodules", "submodule.in/deep.url", "../deep")
    middle.commit({})
    outer.git("submodule", "--quiet", "add", "--name", "other name", middle.url, "lib/middle")
    outer.git("config", "--file", ".gitmodules", "submodule.other name.url", "./../middle")
    commit = outer.commit({})
    remotes.checkout(outer.url, commit, tmp_path / "first", recursive=True)
    forge.folder.rename(tmp_path / "gone")
    settings(monkeypatch)
    remotes.checkout(outer.url, commit, tmp_path / "second", recursive=True)
    for whole in (tmp_path / "first", tmp_path / "second"):
        lib = Repository(whole / "lib" / "middle")
        inner = Repository(lib.folder / "in" / "deep")
        assert (inner.folder / "file").read_text() == "deep"
        assert (lib.folder / ".git").is_file(), "its repository is the outer one's, as git has it"
        assert lib.git("remote", "get-url", "origin") == middle.url
        assert inner.git("remote", "get-url", "origin") == deep.url
        assert "deep" in (lib.folder / ".gitmodules").read_text()
        assert Repository(whole).git("status", "--porcelain", "--ignored") == ""
        assert "-" not in Repository(whole).git("submodule", "status", "--recursive").split()[0]
        assert "lib/middle/in/deep/file" in git.tracked(whole)
        assert git.edited(whole) == []
    configs = [config.read_text() for config in (tmp_path / "second").rglob("config")]
    assert len(configs) == 3
    assert str(git_cache.folder()) not in "".join(configs)


def test_a_copied_checkout_has_submodules_of_its_own(
    forge: Forge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_ALLOW_PROTOCOL", "file")
    inner = forge.repository("inner", {"file": "inner"})
    outer = forge.repository("outer")
    outer.git("submodule", "--quiet", "add", inner.url, "inner")
    remotes.checkout(outer.url, outer.commit({}), tmp_path / "there", recursive=True)
    files.copy_tree(tmp_path / "there", tmp_path / "copy")
    files.remove(tmp_path / "there")
    copy = Repository(tmp_path / "copy" / "inner")
    assert copy.git("rev-parse", "HEAD") == inner.git("rev-parse", "HEAD")
    assert str(tmp_path / "copy") in copy.git("rev-parse", "--absolute-git-dir")


def test_a_repository_cannot_make_git_read_this_machines_folders(
    forge: Forge, tmp_path: Path
) -> None:
    secret = forge.repository("secret", {"file": "secret"})
    outer = forge.repository("outer")
    outer.git("-c", "protocol.file.allow=always", "submodule", "add", secret.url, "inner")
    commit = outer.commit({})
    with pytest.raises(Failure, match="transport 'file' not allowed"):
        remotes.checkout(outer.url, commit, tmp_path / "there", recursive=True)


def test_a_submodule_that_its_repository_leaves_out_stays_out(forge: Forge, tmp_path: Path) -> None:
    outer = forge.repository("outer")
    inner = forge.repository("inner")
    outer.git("-c", "protocol.file.allow=always", "submodule", "add", inner.url, "inner")
    outer.git("config", "--file", ".gitmodules", "submodule.inner.update", "none")
    remotes.checkout(outer.url, outer.commit({}), tmp_path / "there", recursive=True)
    assert list((tmp_path / "there" / "inner").iterdir()) == []


def test_a_submodule_that_no_gitmodules_names_can_be_had_by_nobody_and_stays_empty(
    forge: Forge, tmp_path: Path
) -> None:
    outer = forge.repository("outer", {"code.py": "code"})
    Forge(outer.folder).repository("stray")
    outer.git("-c", "advice.addEmbeddedRepo=false", "add", "stray")
    for gitmodules in (None, "# none\n"):
        commit = outer.commit({".gitmodules": gitmodules} if gitmodules else {})
        remotes.checkout(outer.url, commit, tmp_path / "there", recursive=True)
        assert list((tmp_path / "there" / "stray").iterdir()) == []
        assert git.edited(tmp_path / "there") == []


def test_a_submodule_whose_commit_is_gone_is_named_with_it(
    forge: Forge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_ALLOW_PROTOCOL", "file")
    inner = forge.repository("inner")
    outer = forge.repository("outer")
    outer.git("submodule", "--quiet", "add", inner.url, "lib")
    commit, lost = outer.commit({}), inner.git("rev-parse", "HEAD")
    (inner.folder / ".git").rename(tmp_path / "gone")
    again = Repository(inner.folder)
    again.git("init", "--quiet", "--initial-branch=main")
    again.commit({"another": "history"})
    with pytest.raises(Failure) as caught:
        remotes.checkout(outer.url, commit, tmp_path / "there", recursive=True)
    assert str(caught.value) == (
        f"submodule lib of {outer.url}: {inner.url} no longer has its commit {lost[:12]}; "
        "without submodules: recursive: false"
    )


def test_a_submodule_with_an_ssh_url_comes_over_https_where_there_is_no_key(
    forge: Forge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_ALLOW_PROTOCOL", "file:ssh")
    monkeypatch.setenv("GIT_SSH", "/bin/false")
    inner = forge.repository("inner", {"code.py": "code"})
    # Stands for the host: https is what everybody can read.
    config = tmp_path / "gitconfig"
    config.write_text(f'[url "{forge.folder.as_uri()}/"]\n insteadOf = https://forge.test/o/\n')
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    for url in ("git@forge.test:o/inner", "ssh://git@forge.test/o/inner"):
        outer = forge.repository(f"outer-{url[0]}")
        outer.git("-c", "protocol.file.allow=always", "submodule", "add", inner.url, "lib")
        outer.git("config", "--file", ".gitmodules", "submodule.lib.url", url)
        commit = outer.commit({})
        remotes.checkout(outer.url, commit, tmp_path / outer.folder.name, recursive=True)
        assert (tmp_path / outer.folder.name / "lib" / "code.py").read_text() == "code"
    outer.git("config", "--file", ".gitmodules", "submodule.lib.url", "git@forge.test:p/inner")
    with pytest.raises(Failure, match=r"submodule lib of .*: git@forge\.test:p/inner "):
        remotes.checkout(outer.url, outer.commit({}), tmp_path / "there", recursive=True)


def test_what_was_edited_in_a_submodule_is_named_in_it(
    forge: Forge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_ALLOW_PROTOCOL", "file")
    inner = forge.repository("inner", {"code.py": "code"})
    outer = forge.repository("outer")
    outer.git("submodule", "--quiet", "add", inner.url, "lib/inner")
    there = tmp_path / "there"
    remotes.checkout(outer.url, outer.commit({}), there, recursive=True)
    (there / "lib" / "inner" / "written.pyc").write_text("untracked")
    assert git.edited(there) == []
    (there / "lib" / "inner" / "code.py").write_text("edited")
    assert git.edited(there) == ["lib/inner/code.py"]


def test_head_is_read_from_a_detached_head_a_branch_and_packed_refs(
    repository: Repository,
) -> None:
    commit = repository.git("rev-parse", "HEAD")
    assert git.head(repository.folder) == commit
    repository.git("pack-refs", "--all")
    assert not (repository.folder / ".git" / "refs" / "heads" / "main").exists()
    assert git.head(repository.folder) == commit
    repository.git("checkout", "--quiet", "--detach", "v1")
    assert git.head(repository.folder) == repository.git("rev-parse", "v1^{commit}")


def test_there_is_no_head_where_there_is_no_commit(forge: Forge, tmp_path: Path) -> None:
    assert git.head(tmp_path / "nothing") is None
    (tmp_path / "empty").mkdir()
    assert git.head(tmp_path / "empty") is None
    Repository(tmp_path / "empty").git("init", "--quiet")
    assert git.head(tmp_path / "empty") is None


def test_edited_names_tracked_files_that_differ_and_no_others(forge: Forge) -> None:
    repository = forge.repository(
        "pack", {"a.py": "a", "b é.py": "b", "c.py": "c", "models/kept": "", ".gitignore": "*.log"}
    )
    assert git.edited(repository.folder) == []
    (repository.folder / "a.py").touch()
    (repository.folder / "new.py").write_text("untracked")
    (repository.folder / "x.log").write_text("ignored")
    (repository.folder / "models" / "kept").write_text("edited")
    assert git.edited(repository.folder) == []
    (repository.folder / "a.py").write_text("edited")
    (repository.folder / "b é.py").write_text("edited")
    (repository.folder / "c.py").unlink()
    assert sorted(git.edited(repository.folder)) == ["a.py", "b é.py"], "c.py is lost already"
    repository.git("add", "a.py")
    assert sorted(git.edited(repository.folder)) == ["a.py", "b é.py"]


def test_a_file_whose_line_ends_git_would_change_is_no_edit(forge: Forge) -> None:
    repository = forge.repository("lines", {"run.bat": "cd ..\n"})
    (repository.folder / "run.bat").write_bytes(b"cd ..\r\n")
    repository.commit({})
    # What was committed before the attributes came stays as it is until somebody edits it.
    (repository.folder / ".gitattributes").write_text("*.bat text eol=lf\n")
    repository.git("add", ".gitattributes")
    repository.git("commit", "--quiet", "-m", "attributes")
    os.utime(repository.folder / "run.bat", (1, 1))
    assert "run.bat" in repository.git("status", "--porcelain")
    assert git.edited(repository.folder) == []
    assert git.damage(repository.folder) is None


def _spoil(path: Path, content: bytes) -> None:
    path.chmod(0o644)
    path.write_bytes(content)


def _objects(folder: Path) -> list[Path]:
    return [path for path in (folder / ".git" / "objects").rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: _spoil(folder / "a.py", b""),
        lambda folder: (folder / "a.py").unlink(),
        lambda folder: _spoil(folder / ".git" / "index", b"DIRC rubbish"),
        lambda folder: _spoil(folder / ".git" / "HEAD", b"ref: refs/heads/none\n"),
        lambda folder: _spoil(_objects(folder)[0], b"rubbish"),
        lambda folder: _objects(folder)[-1].unlink(),
        lambda folder: shutil.rmtree(folder / ".git"),
    ],
)
def test_damage_of_a_checkout_is_found_also_behind_times_that_fit(
    forge: Forge, damage: Callable[[Path], None]
) -> None:
    folder = forge.repository("sound", {"a.py": "1\n", "b/c.py": "2\n"}).folder
    assert git.damage(folder) is None
    before = (folder / "a.py").stat()
    damage(folder)
    if (folder / "a.py").exists():
        os.utime(folder / "a.py", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert git.damage(folder)


def test_untracked_names_ignored_files_too(forge: Forge) -> None:
    repository = forge.repository("pack", {".gitignore": "*.log\n/out/"})
    for name in ("x.log", "out/1 ü.png", "new\nline"):
        (repository.folder / name).parent.mkdir(exist_ok=True)
        (repository.folder / name).write_text("")
    forge_below = Forge(repository.folder)
    forge_below.repository("nested")
    assert sorted(git.untracked(repository.folder)) == [
        "nested/", "new\nline", "out/1 ü.png", "x.log",
    ]  # fmt: skip
    assert git.tracked(repository.folder) == [".gitignore"]


def test_an_ignored_file_is_out_of_gits_sight_in_its_checkout_alone(forge: Forge) -> None:
    repository = forge.repository("pack", {"sub/a": ""})
    exclude = repository.folder / ".git" / "info" / "exclude"
    exclude.write_text("*.log")
    git.ignore(repository.folder, "/.env")
    for name in (".env", "x.log", "sub/.env"):
        (repository.folder / name).write_text("")
    assert repository.git("status", "--porcelain", "-uall") == "?? sub/.env"
    exclude.unlink()
    exclude.parent.rmdir()
    git.ignore(repository.folder, "/.env")
    assert "?? .env" not in repository.git("status", "--porcelain")


def test_a_snapshot_of_equal_content_is_an_equal_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits = []
    for name, author in (("a", "Anna"), ("b", "Bert")):
        folder = tmp_path / name
        (folder / "sub").mkdir(parents=True)
        (folder / "sub" / "file.py").write_text("content")
        (folder / ".gitignore").write_text("sub/\n")
        monkeypatch.setenv("GIT_AUTHOR_NAME", author)
        monkeypatch.setenv("GIT_COMMITTER_DATE", f"2020-01-0{len(author)}T00:00:00Z")
        commits.append(git.snapshot(folder))
    assert commits[0] == commits[1] == git.head(tmp_path / "b")
    assert "sub/file.py" in git.tracked(tmp_path / "a"), "ignored files belong to it"
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "file.py").write_text("other")
    assert git.snapshot(tmp_path / "c") != commits[0]


def test_threads_check_out_one_url_at_once(repository: Repository, tmp_path: Path) -> None:
    wanted = {ref: remotes.resolve(repository.url, ref) for ref in ("main", "side", "v1")}
    places = [(tmp_path / f"{ref}-{n}", commit) for ref, commit in wanted.items() for n in (1, 2)]
    with ThreadPoolExecutor(len(places)) as pool:
        list(pool.map(lambda place: remotes.checkout(repository.url, place[1], place[0]), places))
    assert [git.head(folder) for folder, _ in places] == [commit for _, commit in places]


def test_processes_check_out_one_url_at_once(repository: Repository, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; "
        "from comfy_machine.host.repositories import remotes; "
        "url, ref, target = sys.argv[1:]; "
        "remotes.checkout(url, remotes.resolve(url, ref), Path(target))"
    )
    refs = ("main", "side", "v1")
    running = [
        subprocess.Popen([sys.executable, "-c", code, repository.url, ref, str(tmp_path / ref)])
        for ref in refs
    ]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    for ref in refs:
        assert git.head(tmp_path / ref) == repository.git("rev-parse", f"{ref}^{{commit}}")


def test_the_cache_is_the_users_and_shared_by_workspaces(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert git_cache.folder() == tmp_path / "cache" / "comfy-machine" / "git"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert git_cache.folder() == tmp_path / "home" / ".cache" / "comfy-machine" / "git"
    assert os.environ["HOME"] == str(tmp_path / "home")


@pytest.mark.parametrize("name", ["$HOME", "~", "a ${PATH}"])
def test_a_folder_whose_name_a_shell_would_expand_is_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    # where git would run otherwise
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / name
    folder.mkdir()
    (folder / "file").write_text("content\n")
    commit = git.snapshot(folder)
    assert git.head(folder) == commit
    assert git.tracked(folder) == ["file"]
