"""What several workflows need together, each with what says so."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from .model_catalogue import ModelCatalogue
from .named_models import NamedModel, models
from .node_catalogue import NodeCatalogue
from .node_sources import Sourced, sources
from .node_uses import NodeUse

SHOWN = 3
"""How many classes or workflows a comment names."""


@dataclass
class Package:
    """A repository that workflows need."""

    repository: str
    """Its key in the catalogue."""
    found: list[tuple[str, Sourced]] = field(default_factory=list)
    """The classes, each with the workflow that uses it."""

    @property
    def is_guess(self) -> bool:
        """Nothing but popularity speaks for it."""
        return bool(self.found) and all(each.is_guess for _, each in self.found)

    @property
    def versions(self) -> list[str]:
        """What workflows say they were made with, the most frequent first."""
        said = [each.use.version for _, each in self.found if each.evidence == "id"]
        return sorted({each for each in said if each}, key=lambda each: (-said.count(each), each))

    def notes(self) -> Iterator[str]:
        """Why it is needed, in lines."""
        for evidence, why in WHY.items():
            kinds = [each.use.kind for _, each in self.found if each.evidence == evidence]
            if kinds:
                yield f"{listed(kinds)}: {why}"
        if self.found:
            yield f"for {listed([name for name, _ in self.found])}"


WHY = {
    "id": "the workflow says that it is from here",
    "class": "no other repository has it",
    "precedence": "of several that have it, the one that the lists prefer",
    "others": "of several that have it, the one that is needed anyway",
    "source": "no list has it, and its source names it",
    "popularity": "a guess: several have it, and this one has by far the most stars",
}


@dataclass
class Gathered:
    """What workflows need."""

    packages: dict[str, Package] = field(default_factory=dict)
    unknown: list[tuple[str, Sourced]] = field(default_factory=list)
    models: dict[str, tuple[str, NamedModel]] = field(default_factory=dict)
    """Name, in lower case → the workflow that names it first."""

    def package(self, repository: str) -> Package:
        """It, or a new one."""
        return self.packages.setdefault(repository, Package(repository))

    def claim(self, package: Package, workflows: Collection[str], kinds: Collection[str]) -> None:
        """Give unknown classes of workflows to a package, whose source names them."""
        for entry in [*self.unknown]:
            name, each = entry
            if name in workflows and each.use.kind in kinds:
                self.unknown.remove(entry)
                known = replace(each, repository=package.repository, evidence="source")
                package.found.append((name, known))

    def known_models(self) -> Iterator[tuple[str, NamedModel]]:
        return (each for each in self.models.values() if each[1].published)

    def unknown_models(self) -> Iterator[tuple[str, NamedModel]]:
        return (each for each in self.models.values() if not each[1].published)


def gathered(
    workflows: Mapping[str, Sequence[NodeUse]],
    core: Collection[str],
    nodes: NodeCatalogue,
    published: ModelCatalogue,
    anyway: Collection[str] = (),
) -> Gathered:
    """What workflows, by their names, need beyond ComfyUI itself.

    `anyway` are repositories that something else needs.
    """
    result = Gathered()
    for name, workflow in workflows.items():
        for each in sources(workflow, core, nodes, anyway):
            if each.repository:
                result.package(each.repository).found.append((name, each))
            else:
                result.unknown.append((name, each))
        for model in models(workflow, published):
            known = result.models.get(model.name.casefold())
            if known is None or (known[1].published is None and model.published):
                result.models[model.name.casefold()] = (name, model)
    return result


def listed(names: Sequence[str]) -> str:
    """Each once, and how many more there are."""
    once = [*dict.fromkeys(names)]
    more = f" and {len(once) - SHOWN} more" if len(once) > SHOWN else ""
    return ", ".join(once[:SHOWN]) + more
