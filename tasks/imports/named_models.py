"""The model files that workflows name, and where each comes from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ..spec.model_names import MODEL_FILE
from ..spec.node_uses import NodeUse
from .model_catalogue import ModelCatalogue, PublishedModel, declared, last_part


@dataclass(frozen=True)
class NamedModel:
    """A model file that a workflow names."""

    use: NodeUse
    """The first node that names it."""
    name: str
    """As the node has it, with forward slashes: loaders find it by that below their folder."""
    published: PublishedModel | None
    """None: where it can be downloaded isn't known."""

    @property
    def target(self) -> str | None:
        """Its place below the models folder; None: not known."""
        if self.published is None:
            return None
        # A loader's name has its subfolders; where it is published it may lie in others.
        folder = self.published.folder.split("/")[0] if "/" in self.name else self.published.folder
        return f"{folder}/{self.name}"


def models(workflow: Sequence[NodeUse], catalogue: ModelCatalogue) -> list[NamedModel]:
    """Each file once."""
    own = {
        each.name.casefold(): each for use in workflow for each in declared(use.models, "workflow")
    }
    found: dict[str, NamedModel] = {}
    for use, name in _names(workflow):
        if name.casefold() not in found:
            known = own.get(last_part(name).casefold()) or next(iter(catalogue.find(name)), None)
            found[name.casefold()] = NamedModel(use, name, known)
    return [*found.values()]


def _names(workflow: Iterable[NodeUse]) -> Iterator[tuple[NodeUse, str]]:
    for use in workflow:
        for _, text in use.texts:
            if "://" not in text and MODEL_FILE.fullmatch(text.strip()):
                yield use, text.strip().replace("\\", "/")
        for each in declared(use.models, "workflow"):
            if not any(last_part(text) == each.name for _, text in use.texts):
                yield use, each.name
