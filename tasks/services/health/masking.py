"""Secrets of instances, workers and nodes, which their logs and errors may repeat."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from tasks.host import files
from tasks.host.redact import MASK
from tasks.spec.layout import Layout

SHORTEST = 6
"""Characters; what is shorter is no secret, and would be found in every other word."""


class Masks:
    """Knows the secrets of a workspace by the files from which its apps get them."""

    def __init__(self, layout: Layout) -> None:
        self._folders = (layout.secrets, layout.dotenvs)
        self._own = os.environ.get("HEALTH_TOKEN", "")
        self._stamps: list[int] = []
        self._secrets: set[str] = set()
        self._written: tuple[bytes, ...] = ()
        self.refresh()

    def refresh(self) -> None:
        """Read them anew where a file came or went."""
        stamps = [_changed(folder) for folder in self._folders]
        if stamps != self._stamps:
            self._stamps = stamps
            values = {value for folder in self._folders for value in _values(folder)}
            self._secrets = {value for value in values | {self._own} if len(value) >= SHORTEST}
            self._written = tuple(json.dumps(value)[1:-1].encode() for value in self._secrets)

    def json(self, body: bytes) -> bytes:
        """A JSON document with `***` for every secret in its texts."""
        # pydantic writes what is not ASCII as it is, json.dumps doesn't.
        plain = (value.encode() for value in self._secrets)
        if not any(secret in body for secret in (*self._written, *plain)):
            return body
        return json.dumps(self._masked(json.loads(body)), ensure_ascii=False).encode()

    def text(self, text: str) -> str:
        for secret in sorted(self._secrets, key=len, reverse=True):
            text = text.replace(secret, MASK)
        return text

    def _masked(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self._masked(each) for each in value]
        if isinstance(value, dict):
            return {self.text(key): self._masked(each) for key, each in value.items()}
        return value


def _changed(folder: Path) -> int:
    try:
        return folder.stat().st_mtime_ns
    except OSError:
        return 0


def _values(folder: Path) -> list[str]:
    """The values of the environment files, and the whole lines of the `.env` files."""
    found: list[str] = []
    for path in folder.glob("*.json"):
        found += [value for value in files.read_receipt(path).values() if isinstance(value, str)]
    for path in folder.glob("*.env"):
        lines = path.read_text(errors="replace").splitlines()
        found += [line.partition("=")[2].strip().strip("'\"") for line in lines if "=" in line]
    return found
