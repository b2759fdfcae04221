"""Where what workflows use comes from: the lists are fetched, and their answers gathered."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

from ..host.registry.registry_api import Registry
from ..host.system.failure import Failure
from ..spec import node_uses
from ..spec.lock_format import Pin
from ..spec.node_uses import NodeUse
from . import core_classes, gathered, lists, model_catalogue, node_catalogue, node_sources
from .entries import Node
from .gathered import Gathered
from .lists import Say
from .node_catalogue import NodeCatalogue
from .registered import Registered
from .wanted import Workflow, node_key

CATALOGUE = "https://github.com/Comfy-Org/ComfyUI-Manager.git"
TEMPLATES = "comfyui_workflow_templates_json"
"""The package of ComfyUI's own templates, where it is installed."""


@dataclass(frozen=True)
class Catalogue:
    """The lists to look in, and the registry."""

    registry: str
    """Its address."""
    place: str = CATALOGUE
    """A folder, or a repository's URL."""
    pinned: Pin | None = None


@dataclass(frozen=True)
class Lookup:
    """The answers."""

    found: Gathered = field(default_factory=Gathered)
    nodes: NodeCatalogue = field(default_factory=NodeCatalogue)
    pin: Pin | None = None
    """Of the lists; None: they come from a folder."""
    unreachable: str = ""
    """Why the lists are those of the last time."""
    missing: Sequence[str] = ()
    """What else couldn't be had, a line each."""
    registered: Registered | None = None
    """None: nothing was looked up."""

    def repository(self, node: Node) -> str:
        """The key of a node that a file names."""
        return self.nodes.ids.get(node.id.casefold(), "") or node_key(node)


def look_up(
    workflows: Sequence[Workflow],
    comfyui: tuple[str, str],
    otherwise: tuple[str, str],
    anyway: Sequence[Node],
    catalogue: Catalogue,
    say: Say,
) -> Lookup:
    """What workflows need of a ComfyUI (repository, ref) besides `anyway`; where it can't be had,
    of another.

    Raises Failure and OSError.
    """
    with TemporaryDirectory() as folder:
        missing: list[str] = []
        try:
            core = lists.fetch(*comfyui, Path(folder, "core"), say)
        except Failure as failure:
            if otherwise == comfyui:
                raise
            missing.append(f"{failure}; its classes are taken from {otherwise[1]}")
            core = lists.fetch(*otherwise, Path(folder, "core"), say)
        place, fetched = Path(catalogue.place), None
        if not place.is_dir():
            fetched = lists.fetch(
                catalogue.place, None, Path(folder, "lists"), say, catalogue.pinned
            )
            place = fetched.folder
        nodes, published = _read(place, catalogue.place)
        used = {each.name: node_uses.uses(each.document) for each in workflows}
        registered = Registered(Registry(catalogue.registry), say)
        ids = registered.repositories(_unlisted(used.values(), nodes)) | {**nodes.ids}
        nodes = replace(nodes, ids=ids)
        empty = Lookup(nodes=nodes)
        found = gathered.gathered(
            used,
            core_classes.core_classes(core.folder),
            nodes,
            published,
            [empty.repository(node) for node in anyway],
        )
    why = core.unreachable or (fetched.unreachable if fetched else "")
    pin = fetched.pin if fetched else None
    return Lookup(found, nodes, pin, why, missing, registered)


def _unlisted(workflows: Iterable[Sequence[NodeUse]], nodes: NodeCatalogue) -> list[str]:
    """Registry ids that workflows name and the lists lack."""
    named = dict.fromkeys(use.registry_id for uses in workflows for use in uses)
    own = {"", node_sources.CORE_ID}
    return [each for each in named if each not in own and each.casefold() not in nodes.ids]


def _read(place: Path, name: str) -> tuple[NodeCatalogue, model_catalogue.ModelCatalogue]:
    """Raises Failure and OSError."""
    try:
        return node_catalogue.read(place), model_catalogue.collected(_published(place))
    except FileNotFoundError as error:
        lacking = Path(error.filename).name
        message = f"{name} has no {lacking}: --catalogue is for ComfyUI-Manager's lists"
        raise Failure(message) from None
    except ValueError as error:
        raise Failure(str(error)) from None


def _published(place: Path) -> Iterator[model_catalogue.PublishedModel]:
    about = importlib.util.find_spec(TEMPLATES)
    places = about.submodule_search_locations or () if about else ()
    own = (model_catalogue.of_templates(Path(each, "templates")) for each in places)
    return chain(*own, model_catalogue.read(place / model_catalogue.MODELS))
