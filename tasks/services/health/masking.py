"""Secrets of instances, workers and nodes, which their logs and errors may repeat."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tasks.host import files
from tasks.host.redact import MASK
from tasks.host.seen import FRESH
from tasks.spec.layout import Layout

SHORTEST = 6
"""Characters; what is shorter is no secret, and would be found in every other word."""
ESCAPES = {"n": "\n", "r": "\r"}


class Masks:
    """Knows the secrets of a workspace by the files from which its apps get them."""

    def __init__(self, layout: Layout) -> None:
        self._folders = (layout.secrets, layout.dotenvs)
        self._own = os.environ.get("HEALTH_TOKEN", "")
        self._stamps: list[int] = []
        self._secrets: tuple[str, ...] = ()
        self._ends: tuple[bytes, ...] = ()
        self.refresh()

    def refresh(self) -> None:
        """Read them anew where a file came or went, perhaps a moment ago: clocks are coarse."""
        stamps = [_changed(folder) for folder in self._folders]
        if stamps == self._stamps and time.time_ns() - max(stamps) > FRESH * 1e9:
            return
        found = set(_parts([self._own, *(v for folder in self._folders for v in _values(folder))]))
        ends = {end for secret in found for end in (secret[:SHORTEST], secret[-SHORTEST:])}
        self._secrets = tuple(sorted(found, key=len, reverse=True))
        self._ends = tuple({form for end in ends for form in _written(end)})
        self._stamps = stamps

    def json(self, body: bytes) -> bytes:
        """A JSON document with `***` for every secret in its texts."""
        if not any(end in body for end in self._ends):
            return body
        return json.dumps(self._masked(json.loads(body)), ensure_ascii=False).encode()

    def text(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, MASK)
            # Long lines are cut, and the cut may go through a secret.
            for length in range(min(len(secret), len(text)), SHORTEST - 1, -1):
                if text.endswith(secret[:length]):
                    text = text[:-length] + MASK
                if text.startswith(secret[-length:]):
                    text = MASK + text[length:]
        return text

    def _masked(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self._masked(each) for each in value]
        if isinstance(value, dict):
            return {self.text(key): self._masked(each) for key, each in value.items()}
        return value


def _parts(values: Iterable[str]) -> Iterator[str]:
    """A key has many lines, and a log shows them one by one."""
    for value in values:
        yield from (line.strip() for line in value.splitlines() if len(line.strip()) >= SHORTEST)


def _written(text: str) -> tuple[bytes, bytes]:
    """As JSON has it, with what is not ASCII escaped or not."""
    return json.dumps(text)[1:-1].encode(), json.dumps(text, ensure_ascii=False)[1:-1].encode(
        errors="replace"
    )


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
        try:
            lines = files.read_bytes(path).decode(errors="replace").splitlines()
        except OSError:
            # It went meanwhile.
            continue
        found += [_unquoted(line.partition("=")[2].strip()) for line in lines if "=" in line]
    return found


def _unquoted(text: str) -> str:
    """A value of a `.env` file, as the stage that writes those quotes it."""
    if text.startswith('"'):
        inner = text.strip('"').removesuffix("${:-}")
        text = re.sub(r"\\(.)", lambda found: ESCAPES.get(found[1], found[1]), inner)
    return text.strip("'").replace("${:-$}{", "${")
