"""The client of the machine's health server. Not through requests, whose import takes longer."""

from __future__ import annotations

from typing import Any

from tasks.host import comfyui

PATIENCE = 1.0
"""Seconds that an answer may take beyond what it was asked to wait; it comes from memory."""


def ask(
    listen: str, port: int, token: str | None, path: str, timeout: float = PATIENCE
) -> tuple[int, dict[str, Any]] | None:
    """The code and body of the server's answer to a path, within `timeout` seconds.

    None when nothing answers there, or something else than a health server.
    """
    import http.client
    import json

    address = comfyui.url(listen, port).removeprefix("http://")
    connection = http.client.HTTPConnection(address, timeout=timeout)
    try:
        connection.request("GET", path, headers=_headers(token))
        answer = connection.getresponse()
        body = json.loads(answer.read())
    except (OSError, http.client.HTTPException, ValueError, RecursionError):
        return None
    finally:
        connection.close()
    if not isinstance(body, dict) or not isinstance(body.get("status"), str):
        return None
    return answer.status, body


def _headers(token: str | None) -> dict[str, bytes]:
    return {"Authorization": f"Bearer {token}".encode()} if token else {}
