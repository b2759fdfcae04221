"""The extension class: ``comfy_entrypoint`` of a custom node returns such an object."""

from __future__ import annotations

from abc import ABC, abstractmethod

from comfy_api.latest import io

__all__ = ["ComfyExtension", "io"]


class ComfyExtension(ABC):
    """A pack of nodes."""

    async def on_load(self) -> None:  # noqa: B027
        """Called when the pack is loaded, since 2026."""

    @abstractmethod
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """The nodes of the pack."""
