"""Credentials in the output of others: git, uv, npm and custom nodes repeat URLs and variables."""

from __future__ import annotations

import re
from collections.abc import Iterable

#: The text between `://` and `@`. With ssh, a user alone is no secret; it is usually `git`.
_USERINFO = re.compile(r"(ssh)?://([^\s/?#\"<>\\]+)@")
_HEADER = re.compile(r"(\bauthorization: *\w+ +)\S+", re.I)
MASK = "***"
SHORTEST = 6
"""Characters; a shorter value is no secret, and would match parts of many words."""


def redact(text: str) -> str:
    """The text with `***` for the user and password of every URL, and for the value of every
    Authorization header."""
    if "@" in text:
        text = _USERINFO.sub(_masked, text)
    return _HEADER.sub(rf"\1{MASK}", text)


def _masked(match: re.Match[str]) -> str:
    ssh, userinfo = match.groups()
    return match[0] if ssh and ":" not in userinfo else f"{ssh or ''}://{MASK}@"


def mask(text: str, secrets: Iterable[str]) -> str:
    """The text with `***` for each of these secrets, and for each of their lines."""
    for secret in longest_first(secrets):
        text = text.replace(secret, MASK)
    return text


def longest_first(secrets: Iterable[str]) -> list[str]:
    """The secrets and their lines without the short ones; one may contain another."""
    lines = {line for secret in secrets for line in (secret, *secret.splitlines())}
    return sorted((line for line in lines if len(line) >= SHORTEST), key=lambda s: (-len(s), s))
