"""One advisory in OSV's format, and whether it is about something in a version.

Source: the OSV schema 1.7, https://ossf.github.io/osv-schema/.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...spec.problems import shown
from ...spec.urls import repository_key

PYPI, GIT = "PyPI", "GIT"
PAGE = "https://osv.dev/vulnerability/"
#: Events of a range, and what each says of a version at it and after it.
BEGINS, ENDS, LAST = "introduced", ("fixed", "limit"), "last_affected"


@dataclass(frozen=True)
class Subject:
    """What advisories may be about: a package of PyPI, or a repository."""

    package: str = ""
    version: str = ""
    """Of the package; of the repository as far as it is known."""
    repository: str = ""
    commit: str = ""


@dataclass(frozen=True)
class Advisory:
    """What an advisory says of itself."""

    id: str
    summary: str
    aliases: tuple[str, ...] = ()

    @property
    def names(self) -> frozenset[str]:
        return frozenset([self.id, *self.aliases])

    @property
    def page(self) -> str:
        return PAGE + self.id


def advisory(document: Mapping[str, Any]) -> Advisory | None:
    """The advisory of a document; None: it has no id, or was withdrawn."""
    name, aliases = document.get("id"), document.get("aliases")
    if not isinstance(name, str) or not re.fullmatch(r"[\w:.-]{1,100}", name):
        return None
    if document.get("withdrawn"):
        return None
    summary = document.get("summary") or document.get("details")
    text = " ".join(summary.split()) if isinstance(summary, str) else ""
    listed = aliases if isinstance(aliases, list) else []
    return Advisory(name, shown(text, 160), tuple(each for each in listed if isinstance(each, str)))


def affects(document: Mapping[str, Any], subject: Subject) -> bool | None:
    """Whether the document says that this is affected; None: it is about it, and whether about this
    version can't be told."""
    answers = {
        _is_affected(each, subject)
        for each in _mappings(document.get("affected"))
        if _is_about(each, subject)
    }
    return True if True in answers else None if None in answers else False


def _is_about(affected: Mapping[str, Any], subject: Subject) -> bool:
    package = affected.get("package")
    package = package if isinstance(package, dict) else {}
    ecosystem, name = str(package.get("ecosystem", "")), str(package.get("name", ""))
    if subject.package:
        return ecosystem == PYPI and _normal(name) == _normal(subject.package)
    key = repository_key(subject.repository)
    named = [name] if ecosystem == GIT else []
    named += [str(each.get("repo", "")) for each in _mappings(affected.get("ranges"))]
    return bool(key) and key in map(repository_key, named)


def _is_affected(affected: Mapping[str, Any], subject: Subject) -> bool | None:
    versions, ranges = affected.get("versions"), [*_mappings(affected.get("ranges"))]
    listed = {str(each) for each in versions} if isinstance(versions, list) else set[str]()
    if subject.version and {subject.version, f"v{subject.version}"} & listed:
        return True
    answers = {_is_in(each, subject) for each in ranges}
    if True in answers:
        return True
    # A list of versions is complete where there is no range.
    undecided = not ranges and not (listed and subject.version)
    return None if None in answers or undecided else False


def _is_in(span: Mapping[str, Any], subject: Subject) -> bool | None:
    events = [
        (kind, str(value)) for each in _mappings(span.get("events")) for kind, value in each.items()
    ]
    if span.get("type") == GIT:
        return _by_commit(events, subject.commit)
    return _by_version(events, subject.version)


def _by_commit(events: Sequence[tuple[str, str]], commit: str) -> bool | None:
    """What can be told without the history."""
    kinds = {kind for kind, _ in events}
    if commit and ((BEGINS, commit) in events or (LAST, commit) in events):
        return True
    if commit and ("fixed", commit) in events:
        return False
    if (BEGINS, "0") in events and not kinds & {*ENDS, LAST}:
        return True
    return None


def _by_version(events: Sequence[tuple[str, str]], version: str) -> bool | None:
    """The evaluation of https://ossf.github.io/osv-schema/#evaluation."""
    from packaging.version import InvalidVersion, Version

    try:
        here = Version(version)
        ordered = sorted((Version(text), kind) for kind, text in events if text != "0")
    except InvalidVersion:
        return None
    affected = (BEGINS, "0") in events
    for at, kind in ordered:
        if kind == BEGINS and here >= at:
            affected = True
        elif (kind in ENDS and here >= at) or (kind == LAST and here > at):
            affected = False
    return affected


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _mappings(value: Any) -> Iterator[Mapping[str, Any]]:
    yield from (each for each in value if isinstance(each, dict)) if isinstance(value, list) else ()
