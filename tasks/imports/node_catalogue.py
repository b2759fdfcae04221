"""Which repositories have which node classes, as ComfyUI-Manager's lists say.

Source of the formats: ComfyUI-Manager 4, `custom-node-list.json`, `extension-node-map.json` and
`github-stats.json`. They are read from where they lie and never shipped: they are GPL.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..spec.urls import parse_remote

NODES, CLASSES, STARS = "custom-node-list.json", "extension-node-map.json", "github-stats.json"
FURTHER = Path("node_db", "dev")
"""Where the repository has further lists of the same kind: of packs whose authors call them
unfinished, and which people use."""
CORE = frozenset(["comfyanonymous/comfyui", "comfy-org/comfyui"])
"""ComfyUI itself, which the lists have too."""


@dataclass(frozen=True)
class NodeCatalogue:
    """Repositories by their keys (`key`)."""

    urls: Mapping[str, str] = field(default_factory=dict)
    """Of each, as it is cloned."""
    ids: Mapping[str, str] = field(default_factory=dict)
    """Registry id → repository."""
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Class → the repositories that have one of this name."""
    patterns: tuple[tuple[re.Pattern[str], str], ...] = ()
    """What the names of a repository's other classes look like."""
    stars: Mapping[str, int] = field(default_factory=dict)
    precedence: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Class → the repositories that the lists prefer for it."""

    def by_class(self, kind: str) -> tuple[str, ...]:
        """The repositories that may have this class: by its name, else by how it looks."""
        if found := self.classes.get(kind) or self.classes.get(kind.strip()):
            return found
        return tuple(sorted({key for pattern, key in self.patterns if pattern.search(kind)}))

    def url(self, repository: str) -> str:
        return self.urls.get(repository, f"https://github.com/{repository}")


def key(url: str) -> str:
    """What tells repositories apart: owner/name at GitHub, else the address."""
    try:
        url = parse_remote(url).url
    except ValueError:
        return url.casefold()
    found = re.search(r"github\.com[/:]([^/]+/[^/]+?)(?:\.git)?/?$", url, re.I)
    return (found[1] if found else url.removesuffix(".git")).casefold()


def read(folder: Path) -> NodeCatalogue:
    """The catalogue in a folder. Raises OSError, and ValueError for what isn't in its format."""
    urls, ids = _nodes(_document(folder / NODES))
    known, preferred = _Repositories(), _Repositories()
    patterns: list[tuple[re.Pattern[str], str]] = []
    _add(_document(folder / CLASSES), urls, known, preferred, patterns)
    stars = _stars(folder / STARS)
    further = folder / FURTHER
    if (further / CLASSES).is_file():
        more_urls, more_ids = _nodes(_document(further / NODES))
        urls, ids, stars = more_urls | urls, more_ids | ids, _stars(further / STARS) | stars
        _add(_document(further / CLASSES), urls, known, preferred, patterns)
    return NodeCatalogue(urls, ids, known.done(), tuple(patterns), stars, preferred.done())


class _Repositories(dict[str, list[str]]):
    """Class → repositories, each once."""

    def note(self, kind: str, repository: str) -> None:
        if repository not in self.setdefault(kind, []):
            self[kind].append(repository)

    def done(self) -> dict[str, tuple[str, ...]]:
        return {kind: tuple(repositories) for kind, repositories in self.items()}


def _add(
    classes: Mapping[str, Any],
    urls: dict[str, str],
    known: _Repositories,
    preferred: _Repositories,
    patterns: list[tuple[re.Pattern[str], str]],
) -> None:
    for url, entry in classes.items():
        repository = key(url)
        if repository in CORE or not isinstance(entry, list) or not entry:
            continue
        urls.setdefault(repository, url)
        for name in entry[0] if isinstance(entry[0], list) else ():
            known.note(str(name), repository)
        about = entry[1] if len(entry) > 1 and isinstance(entry[1], dict) else {}
        for name in about.get("preemptions") or ():
            preferred.note(str(name), repository)
        if pattern := _pattern(about.get("nodename_pattern")):
            patterns.append((pattern, repository))


def _nodes(document: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
    """Repository → URL, and registry id → repository."""
    entries = document.get("custom_nodes")
    urls: dict[str, str] = {}
    ids: dict[str, str] = {}
    for entry in entries if isinstance(entries, list) else ():
        if not isinstance(entry, dict) or not isinstance(entry.get("reference"), str):
            continue
        repository = key(entry["reference"])
        urls.setdefault(repository, entry["reference"])
        if isinstance(entry.get("id"), str):
            ids.setdefault(entry["id"].casefold(), repository)
    return urls, ids


def _stars(file: Path) -> dict[str, int]:
    """Missing, there are none: they only order guesses."""
    try:
        found = _document(file)
    except (OSError, ValueError):
        return {}
    return {
        key(url): int(entry["stars"])
        for url, entry in found.items()
        if isinstance(entry, dict) and isinstance(entry.get("stars"), int)
    }


def _pattern(text: Any) -> re.Pattern[str] | None:
    try:
        return re.compile(text) if isinstance(text, str) and text else None
    except re.error:
        return None


def _document(file: Path) -> dict[str, Any]:
    found = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise ValueError(f"{file} is no list of ComfyUI-Manager")
    return found
