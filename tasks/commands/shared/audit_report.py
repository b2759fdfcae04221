"""What an audit found, and its lines for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from ...host.advisories.osv_document import Advisory, Subject

Result = Literal["fine", "refused", "advisory", "unknown"]
Verdict = tuple[Result, str]
"""A result, and why."""
FINE: Verdict = ("fine", "")
NAMELESS = Subject()


@dataclass(frozen=True)
class Part:
    """ComfyUI or a custom node, and what is said of it."""

    name: str
    shown: str
    """Its version in the registry, or its short commit; empty: not known."""
    verdict: Verdict = FINE
    subject: Subject = NAMELESS
    """What advisories are looked for; empty: nothing that they name."""
    notes: tuple[str, ...] = ()
    advisories: tuple[Advisory, ...] = ()

    @property
    def result(self) -> Result:
        """The worst that is said."""
        if self.verdict[0] == "refused":
            return "refused"
        return "advisory" if self.advisories else self.verdict[0]

    @property
    def reason(self) -> str:
        return self.verdict[1]


@dataclass(frozen=True)
class Package:
    """A Python package of machine.lock, and the advisories about its version."""

    name: str
    version: str
    advisories: tuple[Advisory, ...] = ()


@dataclass(frozen=True)
class Audit:
    """The whole of it."""

    parts: tuple[Part, ...]
    packages: tuple[Package, ...]
    """Those that advisories can be about."""
    unknown_packages: tuple[str, ...]
    """Those that are from elsewhere than an index."""
    failed: tuple[str, ...]
    """Why a source of advisories has no answer."""

    @property
    def found(self) -> bool:
        """Whether anything is refused or has an advisory."""
        refused = any(each.result in ("refused", "advisory") for each in self.parts)
        return refused or any(each.advisories for each in self.packages)


def lines(found: Audit) -> Iterator[str]:
    """The audit for people."""
    for each in found.parts:
        yield from _part_lines(each)
    for package in found.packages:
        for advisory in package.advisories:
            yield f"✗ {package.name} {package.version} (Python package): {_described(advisory)}"
    yield from (f"! advisories are missing: {why}" for why in found.failed)
    yield _total(found)


_SIGNS: Mapping[Result, str] = {"fine": "✓", "refused": "✗", "advisory": "✗", "unknown": "?"}


def _part_lines(part: Part) -> Iterator[str]:
    head = f"{_SIGNS[part.result]} {part.name} {part.shown}".rstrip()
    told = [part.reason] if part.result == "refused" else []
    told += [_described(each) for each in part.advisories]
    if part.verdict[0] == "unknown":
        told.append(f"can't be judged: {part.reason}")
    for why in [*told, *part.notes] or [""]:
        yield f"{head}: {why}" if why else head


def _described(advisory: Advisory) -> str:
    summary = f": {advisory.summary}" if advisory.summary else ""
    return f"{advisory.id}{summary} ({advisory.page})"


def _total(found: Audit) -> str:
    bad = sum(each.result in ("refused", "advisory") for each in found.parts)
    packages_bad = sum(bool(each.advisories) for each in found.packages)
    unknown = [each.name for each in found.parts if each.verdict[0] == "unknown"]
    unknown += found.unknown_packages
    if found.failed:
        unknown.append(f"{len(found.packages)} Python packages")
    packages = f" and {packages_bad} of {len(found.packages)} Python packages"
    total = f"{bad} of {len(found.parts)} sources{packages if found.packages else ''} have findings"
    return f"{total}; can't be judged: {', '.join(unknown)}" if unknown else total
