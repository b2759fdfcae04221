"""The page at `/`: one file, whose only script and only style its policy names by their hash."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass

from ....host.system.templates import FOLDER

POLICY = (
    "default-src 'none'; script-src {script}; style-src {style}; img-src 'self' data:;"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none';"
    " require-trusted-types-for 'script'; trusted-types 'none'"
)
"""The browser then runs no other script, contacts no other server, and parses no text as markup."""


@dataclass(frozen=True)
class Page:
    body: bytes
    """HTML in UTF-8."""
    policy: str
    """For the header Content-Security-Policy."""


def load() -> Page:
    """Raises ValueError unless there are exactly one script and one style."""
    body = (FOLDER / "page.html").read_bytes()
    return Page(body, POLICY.format(script=_hash("script", body), style=_hash("style", body)))


def _hash(tag: str, body: bytes) -> str:
    """A source expression (CSP level 3, 2.3.1) of the text between the tags."""
    (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>".encode(), body, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(text).digest()).decode()}'"
