"""Where the nodes of workflows come from, and what says so."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from ..spec.node_uses import NodeUse
from .node_catalogue import NodeCatalogue, key

CORE_ID = "comfy-core"
OWNER_AND_NAME = re.compile(r"\w[\w-]*/\w[\w.-]*")
"""A repository at GitHub, as a workflow names it."""
MORE_STARS = 5
"""By how many times the most popular of several leads to be guessed."""

Evidence = Literal["id", "class", "precedence", "others", "source", "popularity"]
"""The workflow's own id; the only repository with this class; the one of several that the lists
prefer, if it has the most stars; the only one that is needed anyway; in no list, but in the source
of one that is needed; a guess by GitHub's stars."""


@dataclass(frozen=True)
class Sourced:
    """A class that a workflow uses, and where it comes from."""

    use: NodeUse
    repository: str
    """Its key in the catalogue; empty: not known."""
    evidence: Evidence | None = None
    candidates: tuple[str, ...] = ()
    """All that may have it, where nothing decides."""

    @property
    def is_guess(self) -> bool:
        return self.evidence == "popularity"


def sources(
    workflow: Sequence[NodeUse],
    core: Collection[str],
    catalogue: NodeCatalogue,
    anyway: Collection[str] = (),
) -> list[Sourced]:
    """For each class that isn't ComfyUI's own, once: its first use and its source.

    `anyway` are repositories that are needed, whatever this workflow uses.
    """
    firsts: dict[str, NodeUse] = {}
    for use in workflow:
        if use.registry_id == CORE_ID or (use.kind in core and not _own(use)):
            continue
        # A use that says where it comes from wins.
        if use.kind not in firsts or (_own(use) and not _own(firsts[use.kind])):
            firsts[use.kind] = use
    found = {kind: _alone(use, catalogue) for kind, use in firsts.items()}
    used = {each.repository for each in found.values() if each.repository} | {*anyway}
    for kind, each in found.items():
        if not each.repository and each.candidates:
            found[kind] = _settled(each, used, catalogue)
    return [*found.values()]


def _own(use: NodeUse) -> bool:
    return bool(use.registry_id or use.repository)


def _alone(use: NodeUse, catalogue: NodeCatalogue) -> Sourced:
    """What the node and the catalogue say, without the rest of the workflow."""
    if OWNER_AND_NAME.fullmatch(use.repository):
        return Sourced(use, key(f"https://github.com/{use.repository}"), "id")
    if known := catalogue.ids.get(use.registry_id.casefold()):
        return Sourced(use, known, "id")
    candidates = catalogue.by_class(use.kind)
    if len(candidates) == 1:
        return Sourced(use, candidates[0], "class")
    preferred = catalogue.precedence.get(use.kind, ())
    # They also prefer a new pack to the one with which everybody's workflows were made.
    if len(preferred) == 1 and preferred[0] == _by_stars(candidates, catalogue)[0]:
        return Sourced(use, preferred[0], "precedence", candidates)
    return Sourced(use, "", None, candidates)


def _settled(each: Sourced, used: Collection[str], catalogue: NodeCatalogue) -> Sourced:
    among = [candidate for candidate in each.candidates if candidate in used]
    if len(among) == 1:
        return Sourced(each.use, among[0], "others", each.candidates)
    first, *rest = _by_stars(among or each.candidates, catalogue)
    if not rest or catalogue.stars.get(first, 0) >= MORE_STARS * max(
        1, catalogue.stars.get(rest[0], 0)
    ):
        return Sourced(each.use, first, "popularity", each.candidates)
    return each


def _by_stars(repositories: Collection[str], catalogue: NodeCatalogue) -> list[str]:
    return sorted(repositories, key=lambda each: (-catalogue.stars.get(each, 0), each))


def repositories(found: Collection[Sourced]) -> Iterator[str]:
    """All that are needed, each once, in the order of their first use."""
    yield from dict.fromkeys(each.repository for each in found if each.repository)
