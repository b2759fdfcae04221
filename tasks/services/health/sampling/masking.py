"""Secrets of instances, workers and nodes, which their logs and errors may repeat."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel

from ....host.pm2 import app_secrets, log_evidence
from ....host.system.redaction import MASK, SHORTEST
from ....spec.layout import Layout
from ..model import answers
from . import gateway_link

OWN = ("HEALTH_TOKEN", gateway_link.TOKEN)
"""The variables with secrets of this server's own."""


class Masks:
    """Masks the secrets of a workspace, read from the files that its apps read them from."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._own = {os.environ.get(name, "") for name in OWN}
        self._values: set[str] = set()
        self._secrets: tuple[str, ...] = ()
        self._beginnings: set[bytes] = set()
        self.refresh()

    def refresh(self) -> None:
        """Read the files again where one was added or removed."""
        values = {*self._own, *app_secrets.values(self._layout)}
        if values != self._values:
            parts = {part for value in values for part in _parts(value) if len(part) >= SHORTEST}
            # The longest first: it may contain another.
            self._secrets = tuple(sorted(parts, key=lambda secret: (-len(secret), secret)))
            self._beginnings = {_in_json(secret[:SHORTEST]) for secret in self._secrets}
            self._values = values

    def json(self, body: bytes) -> bytes:
        """A JSON document from pydantic, with `***` for every secret in its texts."""
        if not any(beginning in body for beginning in self._beginnings):
            return body
        return json.dumps(self._masked(json.loads(body)), ensure_ascii=False).encode()

    def text(self, text: str) -> str:
        if text in FIELD_WORDS:
            return text
        is_cut = len(text) >= log_evidence.LONGEST
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        return self._mask_cut_end(text) if is_cut else text

    def _mask_cut_end(self, text: str) -> str:
        """Mask the beginning of a secret at the end of a line that was cut."""
        for secret in self._secrets:
            for length in range(len(secret) - 1, SHORTEST - 1, -1):
                if text.endswith(secret[:length]):
                    return text[:-length] + MASK
        return text

    def _masked(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self._masked(each) for each in value]
        if isinstance(value, dict):
            return {self.text(key): self._masked(each) for key, each in value.items()}
        return value


def _field_words() -> Iterator[str]:
    models = [found for found in vars(answers).values() if isinstance(found, type)]
    for model in models:
        if issubclass(model, BaseModel):
            for name, field in model.model_fields.items():
                yield name
                if get_origin(field.annotation) is Literal:
                    yield from get_args(field.annotation)


FIELD_WORDS = frozenset(_field_words())
"""Names and fixed values of fields: never masked, even if a secret is the same word."""


def _in_json(secret: str) -> bytes:
    """As it is written in a JSON document; a lone surrogate, which JSON can't have, differs."""
    return json.dumps(secret, ensure_ascii=False)[1:-1].encode(errors="surrogatepass")


def _parts(value: str) -> Iterator[str]:
    """A secret and its lines, also as they are shown in a log."""
    for line in (value, *value.splitlines()):
        for shown in (line, log_evidence.plain(line), answers.one_line(line)):
            yield from (shown, shown.strip())
