"""Documents in OSV's format: what each is about, and whether a version is affected."""

from __future__ import annotations

from typing import Any

import pytest

from comfy_machine.host.advisories.osv_document import Subject, advisory, affects
from comfy_machine.host.advisories.osv_service import Service
from comfy_machine.host.downloads.web import Tolerance, Web
from comfy_machine.host.system.failure import Failure
from tests.model_server import model_server

ONE, TWO = "1" * 40, "2" * 40
REPOSITORY = "https://github.com/Owner/Node"


def of_package(*ranges: dict[str, Any], versions: list[str] | None = None) -> dict[str, Any]:
    package = {"name": "Some_Package", "ecosystem": "PyPI"}
    entry = {"package": package, "ranges": [*ranges], "versions": versions or []}
    return {"id": "X-1", "affected": [entry]}


def span(*events: tuple[str, str], kind: str = "ECOSYSTEM", **more: str) -> dict[str, Any]:
    return {"type": kind, "events": [{key: value} for key, value in events], **more}


def of_commits(*events: tuple[str, str]) -> dict[str, Any]:
    return {"id": "X-1", "affected": [{"ranges": [span(*events, kind="GIT", repo=REPOSITORY)]}]}


@pytest.mark.parametrize(
    ("document", "version", "affected"),
    [
        (of_package(versions=["1.0"]), "1.0", True),
        (of_package(versions=["1.0"]), "1.1", False),
        (of_package(span(("introduced", "0"), ("fixed", "1.10"))), "1.9", True),
        (of_package(span(("introduced", "0"), ("fixed", "1.10"))), "1.10", False),
        (of_package(span(("introduced", "1.2"), ("last_affected", "1.4"))), "1.1", False),
        (of_package(span(("introduced", "1.2"), ("last_affected", "1.4"))), "1.4", True),
        (of_package(span(("introduced", "1.2"), ("last_affected", "1.4"))), "1.5", False),
        (of_package(span(("fixed", "1.1"), ("introduced", "0"), ("introduced", "2"))), "2.1", True),
        (of_package(span(("introduced", "0"), ("fixed", "1.1")), versions=["3.0"]), "3.0", True),
        (of_package(span(("introduced", "what"))), "1.0", None),
        (of_package(), "1.0", None),
    ],
)
def test_a_package_is_affected_by_its_version(
    document: dict[str, Any], version: str, affected: bool | None
) -> None:
    assert affects(document, Subject("some-package", version)) is affected
    assert affects(document, Subject("other", version)) is False


@pytest.mark.parametrize(
    ("document", "affected"),
    [
        (of_commits(("introduced", "0")), True),
        (of_commits(("introduced", ONE)), True),
        (of_commits(("introduced", "0"), ("last_affected", ONE)), True),
        (of_commits(("introduced", "0"), ("fixed", ONE)), False),
        (of_commits(("introduced", "0"), ("fixed", TWO)), None),
        (of_commits(("introduced", TWO)), None),
    ],
)
def test_a_commit_is_affected_where_that_can_be_told_without_its_history(
    document: dict[str, Any], affected: bool | None
) -> None:
    for url in (REPOSITORY, "https://github.com/owner/node.git", "git@github.com:Owner/Node.git"):
        assert affects(document, Subject(repository=url, commit=ONE)) is affected
    assert affects(document, Subject(repository=f"{REPOSITORY}2", commit=ONE)) is False


def test_a_version_of_a_repository_is_its_tag_with_or_without_a_v() -> None:
    package = {"name": REPOSITORY, "ecosystem": "GIT"}
    document = {"id": "X-1", "affected": [{"package": package, "versions": ["v1.0.0"]}]}
    assert affects(document, Subject(repository=REPOSITORY, version="1.0.0")) is True
    assert affects(document, Subject(repository=REPOSITORY, version="1.0.1")) is False
    assert affects(document, Subject(repository=REPOSITORY, commit=ONE)) is None


@pytest.mark.parametrize(
    "document", [{}, {"id": 1}, {"id": "a b"}, {"id": "X-1", "withdrawn": "2026-01-01T00:00:00Z"}]
)
def test_what_was_withdrawn_or_has_no_id_is_no_advisory(document: dict[str, Any]) -> None:
    assert advisory(document) is None


def test_nonsense_in_a_document_is_no_crash() -> None:
    for affected in (None, 3, [None], [{"package": [], "ranges": [3, {"events": "x"}]}]):
        document: dict[str, Any] = {"id": "X-1", "affected": affected, "summary": 3, "aliases": 3}
        assert affects(document, Subject(repository=REPOSITORY)) is False
        found = advisory(document)
        assert found is not None
        assert found.summary == ""


def test_a_service_that_answers_otherwise_is_named() -> None:
    with model_server() as server:
        server.content = {"/v1/querybatch": b"{}"}
        service = Service(server.url, Web(tolerance=Tolerance(attempts=1)))
        with pytest.raises(Failure, match="127"):
            service.ask([Subject("a", "1")])
