"""What the registry of custom nodes says of them, over its public API.

Source: the registry's OpenAPI document, https://api.comfy.org/openapi. `/nodes/{id}/install` isn't
used: it counts an installation, and says no more than the version itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

from ...spec.problems import shown
from ...spec.urls import parse_remote, repository_key
from ..downloads import json_answer
from ..downloads.web import Tolerance, Web
from ..system.failure import Failure

FOUND = 30
"""Nodes of a search."""
TOLERANCE = Tolerance(attempts=3, advice="try again later")
ACTIVE = "NodeVersionStatusActive"
STATUSES = {
    "NodeVersionStatusFlagged": "flagged",
    "NodeVersionStatusBanned": "banned",
    "NodeVersionStatusDeleted": "deleted",
    "NodeVersionStatusPending": "pending",
    "NodeStatusBanned": "banned",
    "NodeStatusDeleted": "deleted",
}
"""The registry's words for what isn't active, in one word."""
_ABSENT, _FORBIDDEN = 404, 403


@dataclass(frozen=True)
class Node:
    """A custom node, as the registry has it."""

    id: str
    status: str
    """As in the API; empty: it isn't said."""
    words: str = ""
    """Why, in the registry's words."""
    repository: str = ""

    @property
    def refused(self) -> str | None:
        """That it is banned or deleted, in one word; None: it is neither."""
        return STATUSES.get(self.status)


@dataclass(frozen=True)
class Version:
    """A version of a custom node."""

    number: str
    status: str
    words: str = ""
    url: str = ""
    """Of its archive."""
    deprecated: bool = False

    @property
    def is_active(self) -> bool:
        return self.status == ACTIVE

    @property
    def state(self) -> str:
        """Its status in one word."""
        return "active" if self.is_active else STATUSES.get(self.status, "not active")


@dataclass(frozen=True)
class Registry:
    """The registry at an address. Each question raises Failure when it isn't answered."""

    address: str
    web: Web = field(default_factory=lambda: Web(tolerance=TOLERANCE), compare=False)

    @property
    def is_local(self) -> bool:
        """Whether it is on this machine, and may do without TLS."""
        return self.address.startswith("http://")

    def node(self, name: str) -> Node | None:
        """A custom node by its id; None: the registry has none."""
        status, answer = self._ask(f"/nodes/{quote(name, safe='')}", name)
        if status == _ABSENT:
            return None
        if status == _FORBIDDEN:
            said = _text(answer, "message") or _text(answer, "error")
            return Node(name, "NodeStatusBanned", words(said))
        return _node(answer, name)

    def version(self, name: str, number: str) -> Version | None:
        """A version of a custom node; None: the registry has none."""
        path = f"/nodes/{quote(name, safe='')}/versions/{quote(number, safe='')}"
        status, answer = self._ask(path, name)
        if status == _FORBIDDEN:
            raise Failure(f"the registry refuses {name} {number}: {_text(answer, 'message')}")
        return None if status == _ABSENT else _version(answer)

    def versions(self, name: str) -> list[Version]:
        """All versions of a custom node, in the registry's order; empty: it has none."""
        path = f"/nodes/{quote(name, safe='')}/versions?include_status_reason=true"
        status, answer = self._ask(path, name)
        found = [_version(each) for each in answer] if isinstance(answer, list) else []
        return [] if status in (_ABSENT, _FORBIDDEN) else [each for each in found if each.number]

    def search(self, words: str) -> list[Node]:
        """Custom nodes whose id, name or description has these words."""
        return self._found({"search": words}, words)

    def of_repository(self, url: str) -> list[Node]:
        """Custom nodes of a git repository, banned ones too."""
        key = repository_key(url)
        found = self._found({"repository_url_search": "/".join(key.split("/")[-2:])}, key)
        return [each for each in found if repository_key(each.repository) == key]

    def _found(self, asked: Mapping[str, str], label: str) -> list[Node]:
        query = urlencode({**asked, "limit": FOUND, "include_banned": "true"})
        _, answer = self._ask(f"/nodes/search?{query}", label)
        listed = answer.get("nodes") if isinstance(answer, dict) else None
        nodes = [_node(each) for each in listed] if isinstance(listed, list) else []
        return [each for each in nodes if each.id]

    def _ask(self, path: str, label: str) -> tuple[int, Any]:
        """Status and content of an answer: 2xx, 403 or 404. Raises Failure."""
        headers, accepted = {"Accept": "application/json"}, frozenset({_ABSENT, _FORBIDDEN})
        url = f"{self.address}{path}"
        status, answer = self.web.ask(url, label, json_answer.read, headers, accepted=accepted)
        if status == _FORBIDDEN and not isinstance(answer, dict):
            # Of a proxy: the registry says in JSON that a node is banned.
            raise Failure(f"{label}: {self.address} answers 403, and not as the registry does")
        return status, answer


def _node(answer: Any, name: str = "") -> Node:
    return Node(
        _text(answer, "id") or name,
        _text(answer, "status"),
        words(_text(answer, "status_detail")),
        _repository(_text(answer, "repository")),
    )


def _version(answer: Any) -> Version:
    return Version(
        _text(answer, "version"),
        _text(answer, "status"),
        words(_text(answer, "status_reason")),
        _text(answer, "downloadUrl"),
        isinstance(answer, dict) and answer.get("deprecated") is True,
    )


def words(text: str) -> str:
    """A reason on one line: the registry keeps some as JSON with a `message`."""
    try:
        message = json.loads(text)["message"]
        text = message if isinstance(message, str) and message else text
    except (ValueError, LookupError, TypeError, RecursionError):
        pass
    return shown(" ".join(text.split()), 200)


def _text(answer: Any, key: str) -> str:
    value = answer.get(key) if isinstance(answer, dict) else None
    return value if isinstance(value, str) else ""


def _repository(text: str) -> str:
    """A node's repository; empty where it names none that could be cloned."""
    try:
        return parse_remote(text).url if text else ""
    except ValueError:
        return ""
