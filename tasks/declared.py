"""What machine.yaml declares, in the form in which services are told of it."""

from __future__ import annotations

from .host.downloads.model_files import WantedModel
from .host.generations.installed import WantedNode
from .source import stage as source
from .spec import Machine


def comfyui(machine: Machine) -> WantedNode:
    entry = machine.comfyui
    path = str(entry.path) if entry.path else None
    return WantedNode(source.NAME, None if path else entry.repo, entry.ref, path)


def nodes(machine: Machine) -> tuple[WantedNode, ...]:
    return tuple(
        WantedNode(node.name, node.url, node.ref, str(node.path) if node.path else None,
                   node.optional)
        for node in machine.custom_nodes
    )  # fmt: skip


def models(machine: Machine) -> tuple[WantedModel, ...]:
    return tuple(
        WantedModel(file.target, file.url, file.sha256,
                    str(file.source) if file.source else None, file.optional)
        for file in machine.models.files
    )  # fmt: skip
