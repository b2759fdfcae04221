"""What the registry says of ids and versions that workflows name."""

from __future__ import annotations

import threading
from collections.abc import Collection
from dataclasses import dataclass, field

from ..host.registry import registry_api, version_choice
from ..host.system.failure import Failure
from .lists import Say
from .node_catalogue import key


@dataclass
class Registered:
    """The registry; once it doesn't answer, it isn't asked again."""

    registry: registry_api.Registry
    say: Say
    down: bool = False
    _one_at_a_time: threading.Lock = field(default_factory=threading.Lock)

    def repositories(self, names: Collection[str]) -> dict[str, str]:
        """Id, in lower case → the key of its repository, of those that it has."""
        found = {name: self._node(name) for name in names}
        return {
            name.casefold(): key(node.repository)
            for name, node in found.items()
            if node and node.repository
        }

    def version(self, name: str, number: str) -> tuple[str, str]:
        """The number of a version that it offers, or an empty text and why it doesn't."""
        if self._node(name) is None:
            return "", "" if self.down else f"the registry has no custom node {name}"
        try:
            return version_choice.choose(self.registry, name, number).number, ""
        except Failure as failure:
            return "", str(failure)

    def _node(self, name: str) -> registry_api.Node | None:
        """None: it has none of this name, or doesn't answer."""
        with self._one_at_a_time:
            if self.down:
                return None
            try:
                return self.registry.node(name)
            except Failure as failure:
                self.down = True
                self.say(f"{failure}; going on without the registry")
                return None
