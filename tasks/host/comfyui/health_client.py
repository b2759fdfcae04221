"""The client of the machine's health server. Not through requests, whose import takes longer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..system import private_folder
from . import api

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
    import http.client
    import json

    address = api.url(server.listen, server.port).removeprefix("http://")
    connection = http.client.HTTPConnection(address, timeout=timeout)
    try:
        # As bytes, since http.client encodes text as Latin-1.
        token = (server.token or "").strip().encode(errors="surrogateescape")
        headers = {"Authorization": b"Bearer " + token} if token else {}
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        body = json.loads(answer.read())
    except (OSError, http.client.HTTPException, ValueError, RecursionError):
        return None
    finally:
        connection.close()
    if answer.headers.get("Server") != name(server.workspace):
        return None
    if not isinstance(body, dict) or not isinstance(body.get("status"), str):
        return None
    return answer.status, body
