"""Questions to the registry: which version it offers, and answers that are none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from comfy_machine.host.downloads.web import Tolerance, Web
from comfy_machine.host.registry import node_archives, registry_api, version_choice
from comfy_machine.host.registry.registry_api import Registry, Version
from comfy_machine.host.system.failure import Failure
from tests.model_server import model_server
from tests.registry import Node, RegistryServer, registry

ACTIVE = "NodeVersionStatusActive"


@pytest.fixture
def served() -> Iterator[RegistryServer]:
    with registry() as server:
        yield server


def ask(address: str) -> Registry:
    return Registry(address, Web(tolerance=Tolerance(attempts=2, backoff=0.01)))


@pytest.mark.parametrize(
    ("numbers", "newest"),
    [
        (["8.9.0", "8.22.0", "8.3.0"], "8.22.0"),
        (["1.0.0", "2.0.0-beta.1"], "1.0.0"),
        (["1.0.0-alpha", "1.0.0-beta"], "1.0.0-beta"),
        (["1.0.0", "nonsense"], "1.0.0"),
    ],
)
def test_the_newest_is_that_of_the_highest_number(numbers: list[str], newest: str) -> None:
    found = version_choice.newest(Version(each, ACTIVE) for each in numbers)
    assert found is not None
    assert found.number == newest


def test_a_deprecated_version_is_the_newest_only_where_all_are() -> None:
    old, new = Version("1.0.0", ACTIVE), Version("2.0.0", ACTIVE, deprecated=True)
    assert version_choice.newest([old, new]) == old
    assert version_choice.newest([new]) == new
    assert version_choice.newest([Version("3.0.0", "NodeVersionStatusFlagged")]) is None


@pytest.mark.parametrize("status", ["", "NodeVersionStatusNew", "NodeVersionStatusPending"])
def test_only_active_versions_are_offered_whatever_else_a_status_may_be(
    served: RegistryServer, status: str
) -> None:
    served.publish("alpha", "1.0.0", status=status, status_reason="")
    with pytest.raises(Failure, match=r"says that alpha 1\.0\.0 is (pending|not active): name"):
        version_choice.choose(ask(served.url), "alpha", "1.0.0")
    with pytest.raises(Failure, match=r"no active version of alpha: 1\.0\.0 is"):
        version_choice.choose(ask(served.url), "alpha", None)


def test_a_node_without_versions_and_one_without_an_archive_are_named(
    served: RegistryServer,
) -> None:
    served.nodes["empty"] = Node("empty")
    with pytest.raises(Failure, match="no version of empty: give its repository as url:"):
        version_choice.choose(ask(served.url), "empty", None)
    served.publish("alpha", "1.0.0", url="")
    with pytest.raises(Failure, match=r"no archive of alpha 1\.0\.0: name another"):
        version_choice.choose(ask(served.url), "alpha", "1.0.0")


def test_an_answer_that_is_none_of_a_registry_is_a_failure(served: RegistryServer) -> None:
    served.broken = True
    with pytest.raises(Failure, match=r"alpha: 127\.0\.0\.1:\d+ answers 500 .*\(2 tries\)"):
        ask(served.url).node("alpha")
    with model_server() as other:
        other.content = {"/nodes/alpha": b"<html>", "/nodes/beta": b"[]"}
        with pytest.raises(Failure, match="doesn't answer with JSON: correct its address"):
            ask(other.url).node("alpha")
        assert ask(other.url).node("beta") == registry_api.Node("beta", "")
        assert ask(other.url).node("gone") is None


def test_a_registry_that_answers_403_with_a_reason_has_banned_the_node(
    served: RegistryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As its middleware does for a banned node."""
    banned = {"message": "node 'alpha' is currently banned", "error": "forbidden"}
    monkeypatch.setattr(served, "answer", lambda *_: (403, banned))
    with pytest.raises(Failure, match="has banned alpha"):
        version_choice.choose(ask(served.url), "alpha", "1.0.0")
    # A proxy says so of everything, and means another thing.
    monkeypatch.setattr(served, "answer", lambda *_: (403, b"<html>Forbidden"))
    with pytest.raises(Failure, match="answers 403, and not as the registry does"):
        ask(served.url).node("alpha")


def test_reasons_are_one_line_in_the_registrys_own_words() -> None:
    assert registry_api.words('{"message": "it\\n mines", "by": "admin"}') == "it mines"
    assert registry_api.words('["eval"]') == '["eval"]'
    assert registry_api.words("a\x1b[31m b") == r"a\x1b[31m b"
    assert len(registry_api.words("x" * 5000)) == 200


@pytest.mark.parametrize("url", ["http://cdn.example.org/node.zip", "file:///etc/passwd"])
def test_an_archive_comes_over_https_or_from_this_machine(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    version = Version("1.0.0", ACTIVE, url=url)
    for address in ("https://api.comfy.org", "http://127.0.0.1:1"):
        with pytest.raises(Failure, match="isn't at an address of https://"):
            node_archives.fetch(Registry(address), "alpha", version, lambda *_: None)
    local = Version("1.0.0", ACTIVE, url="http://127.0.0.1:1/node.zip")
    with pytest.raises(Failure, match="isn't at an address of https://"):
        node_archives.fetch(Registry("https://api.comfy.org"), "alpha", local, lambda *_: None)


def test_an_archive_that_is_too_large_is_not_kept(
    served: RegistryServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    served.publish("alpha", "1.0.0")
    registry = ask(served.url)
    version = version_choice.choose(registry, "alpha", None)
    with monkeypatch.context() as patch:
        patch.setattr(node_archives, "LONGEST", 10)
        with pytest.raises(Failure, match=r"alpha 1\.0\.0: its archive has more than 10 B"):
            node_archives.fetch(registry, "alpha", version, lambda *_: None)
    assert [path for path in node_archives.folder().rglob("*") if path.is_file()] == []
    fetched = node_archives.fetch(registry, "alpha", version, lambda *_: None)
    assert fetched.file.read_bytes() == served.nodes["alpha"].versions["1.0.0"].archive
    # Again from the cache, unless that is damaged.
    asked = len(served.asked)
    assert node_archives.fetch(registry, "alpha", version, lambda *_: None) == fetched
    assert len(served.asked) == asked
    fetched.file.write_bytes(b"damaged")
    assert node_archives.fetch(registry, "alpha", version, lambda *_: None) == fetched
    assert len(served.asked) == asked + 1
