"""Credentials in the output of others: git, uv, npm and custom nodes repeat URLs."""

from __future__ import annotations

import re

#: The text between `://` and `@`. With ssh, a user alone is no secret; it is usually `git`.
_USERINFO = re.compile(r"(ssh)?://([^\s/?#\"<>\\]+)@")
_HEADER = re.compile(r"(\bauthorization: *\w+ +)\S+", re.I)
MASK = "***"


def redact(text: str) -> str:
    """The text with `***` for the user and password of every URL, and for the value of every
    Authorization header."""
    if "@" in text:
        text = _USERINFO.sub(_masked, text)
    return _HEADER.sub(rf"\1{MASK}", text)


def _masked(match: re.Match[str]) -> str:
    ssh, userinfo = match.groups()
    return match[0] if ssh and ":" not in userinfo else f"{ssh or ''}://{MASK}@"
