"""Archives as commits: the same content is the same commit, and nothing leaves the repository."""

from __future__ import annotations

import io
import stat
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from comfy_machine.host.repositories import archive_commit, git, git_cache, remotes
from comfy_machine.host.system.failure import Failure
from tests.registry import archive

URL = "https://cdn.example.org/alpha/1.0.0/node.zip"


@pytest.fixture
def adopt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], str]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file = tmp_path / "node.zip"

    def write(content: bytes) -> str:
        file.write_bytes(content)
        return git_cache.adopt(URL, lambda repo: archive_commit.write(repo, file, "alpha 1.0.0"))

    return write


def with_member(member: zipfile.ZipInfo, content: str = "x") -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as opened:
        opened.writestr("__init__.py", "")
        opened.writestr(member, content)
    return made.getvalue()


def of_kind(name: str, mode: int) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name)
    member.create_system = 3
    member.external_attr = mode << 16
    return member


def test_a_checkout_has_the_very_bytes_and_names(
    adopt: Callable[[bytes], str], tmp_path: Path
) -> None:
    files: dict[str, str | bytes] = {
        "__init__.py": "crlf\r\n",
        ".gitattributes": "* text=auto\n*.bin filter=lfs\n",
        "js/a b 'c' \"d\".js": "//",
        "web/für/ü.txt": "ü",
        "big.bin": bytes(range(256)) * 9000,
        "folder/": "",
        "empty": "",
    }
    content = io.BytesIO(archive(files))
    with zipfile.ZipFile(content, "a") as opened:
        opened.writestr(of_kind("run.sh", 0o100755), "#!/bin/sh\n")
    commit = adopt(content.getvalue())
    target = tmp_path / "there"
    remotes.checkout(URL, commit, target)
    there = {
        str(path.relative_to(target)): path.read_bytes()
        for path in target.rglob("*")
        if path.is_file() and ".git" not in path.relative_to(target).parts
    }
    wanted = {
        name: text.encode() if isinstance(text, str) else text
        for name, text in files.items()
        if not name.endswith("/")
    }
    assert there == {**wanted, "run.sh": b"#!/bin/sh\n"}
    assert (target / "run.sh").stat().st_mode & stat.S_IXUSR
    assert not (target / "empty").stat().st_mode & stat.S_IXUSR
    assert git.edited(target) == []
    assert git.damage(target) is None
    assert git.commit_date(target) == ""


def test_the_same_content_is_the_same_commit_however_it_is_packed(
    adopt: Callable[[bytes], str],
) -> None:
    one = adopt(archive({"a.py": "1", "b/c.py": "2"}))
    assert adopt(archive({"b/c.py": "2", "a.py": "1"})) == one
    assert adopt(archive({"a.py": "1", "b/c.py": "3"})) != one


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("../evil.py", "../evil.py lies outside of it"),
        ("a/../../evil.py", "a/../../evil.py lies outside of it"),
        ("/etc/cron.d/evil", "/etc/cron.d/evil lies outside of it"),
        ("a//b.py", "a//b.py isn't a name of a file"),
        ("a\\..\\b.py", "a\\..\\b.py isn't a name of a file"),
        ("a\nb.py", r"a\nb.py isn't a name of a file"),
        (".git/hooks/post-checkout", ".git/hooks/post-checkout belongs to a git repository"),
        ("sub/.GIT/config", "sub/.GIT/config belongs to a git repository"),
        ("__init__.py/x", "__init__.py is in it twice"),
        ("__init__.py", "__init__.py is in it twice"),
    ],
)
def test_a_name_that_could_not_be_a_file_of_a_node_is_refused(
    adopt: Callable[[bytes], str], tmp_path: Path, name: str, says: str
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        content = with_member(of_kind(name, 0o100644))
    with pytest.raises(Failure, match=r"alpha 1\.0\.0: its archive is refused: ") as caught:
        adopt(content)
    assert str(caught.value).endswith(says)
    assert not (tmp_path / "evil.py").exists()


@pytest.mark.parametrize(
    ("mode", "says"), [(stat.S_IFLNK | 0o777, "is a link"), (stat.S_IFIFO, "is no plain file")]
)
def test_links_and_devices_are_refused(adopt: Callable[[bytes], str], mode: int, says: str) -> None:
    with pytest.raises(Failure, match=f"models {says}"):
        adopt(with_member(of_kind("models", mode), "/etc"))


def test_what_is_huge_unpacked_is_refused_before_it_is(
    adopt: Callable[[bytes], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bomb = archive({"__init__.py": "", "bomb": b"\0" * (8 << 20)})
    assert len(bomb) < 20_000
    monkeypatch.setattr(archive_commit, "LARGEST", 1 << 20)
    with pytest.raises(Failure, match=r"refused: it has 2 files of 8\.4 MB, and at most 50000 of"):
        adopt(bomb)
    monkeypatch.setattr(archive_commit, "MOST_FILES", 2)
    with pytest.raises(Failure, match=r"it has 3 files"):
        adopt(archive({"a": "", "b": "", "c": ""}))


def test_an_archive_that_lies_about_its_size_ends_at_what_it_says(
    adopt: Callable[[bytes], str],
) -> None:
    honest = archive({"bomb.py": b"\0" * 100_000})
    size = (100_000).to_bytes(4, "little")
    with pytest.raises(Failure, match="its archive is damaged"):
        adopt(honest.replace(size, (10).to_bytes(4, "little")))
    with pytest.raises(Failure, match="its archive is damaged"):
        adopt(honest.replace(size, (200_000).to_bytes(4, "little")))


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"PK\x05\x06" + bytes(10)])
def test_what_is_no_archive_is_damaged(adopt: Callable[[bytes], str], content: bytes) -> None:
    with pytest.raises(Failure, match=r"alpha 1\.0\.0: its archive is damaged"):
        adopt(content)


def test_a_damaged_or_empty_archive_leaves_no_commit(adopt: Callable[[bytes], str]) -> None:
    whole = archive({"a.py": "print()\n" * 1000})
    broken = whole[:60] + bytes(20) + whole[80:]
    with pytest.raises(Failure, match="its archive is damaged"):
        adopt(broken)
    with pytest.raises(Failure, match="its archive is empty"):
        adopt(archive({"folder/": ""}))
    assert git_cache.has(URL, adopt(whole))
