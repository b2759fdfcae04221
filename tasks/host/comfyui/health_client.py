"""The client of the machine's health server."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..system import private_folder
from . import api, exchange

ANSWER_TIMEOUT = 1.0
"""Seconds that an answer may take beyond the requested wait; it comes from memory."""


@dataclass(frozen=True)
class Server:
    """Where the health server of a workspace listens, and its token."""

    workspace: Path
    listen: str
    port: int
    token: str | None


def name(workspace: Path) -> str:
    """The Server header of its answers, which differs between workspaces."""
    return f"comfy-machine/{private_folder.folder(workspace).name}"


def ask(
    server: Server, path: str, timeout: float = ANSWER_TIMEOUT
) -> tuple[int, dict[str, Any]] | None:
    """The code and body of the server's answer to a path, within `timeout` seconds.

    None: nothing answers, or another server does.
    """
    from http.client import HTTPException

    # As bytes, since http.client encodes text as Latin-1.
    token = (server.token or "").strip().encode(errors="surrogateescape")
    headers = {"Authorization": b"Bearer " + token} if token else {}
    try:
        answer = exchange.request(
            api.url(server.listen, server.port), path, timeout, headers=headers
        )
        body = answer.json()
    except (OSError, HTTPException, ValueError, RecursionError):
        return None
    if answer.headers.get("Server") != name(server.workspace):
        return None
    if not isinstance(body, dict) or not isinstance(body.get("status"), str):
        return None
    return answer.status, body
