"""Credentials of a request: the token for exactly its host, or the entry in ~/.netrc."""

from __future__ import annotations

import base64
import contextlib
import netrc
import os
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit


class UnusableToken(ValueError):  # noqa: N818  reads as what it is
    """A token that a header can't contain; the argument is its variable."""


def authorization(
    url: str, token: Callable[[str], tuple[str | None, str | None]]
) -> dict[str, str]:
    """The header of a request to `url`; `token` returns a URL's variable and its value.

    Raises UnusableToken.
    """
    parts = urlsplit(url)
    if parts.scheme != "https":
        return {}
    name, value = token(url)
    if value:
        if not re.fullmatch(r"[\x21-\x7e]+", value):
            raise UnusableToken(name)
        return {"Authorization": f"Bearer {value}"}
    if entry := _netrc(parts.hostname or ""):
        encoded = base64.b64encode(":".join(entry).encode()).decode()
        return {"Authorization": f"Basic {encoded}"}
    return {}


def _netrc(host: str) -> tuple[str, str] | None:
    """User and password of exactly this host, without its port; from $NETRC or ~/.netrc.

    Its `default` entry is never used: redirects lead to hosts that the user doesn't know.
    """
    with contextlib.suppress(OSError, netrc.NetrcParseError, RuntimeError, UnicodeError):
        entries = netrc.netrc(os.environ.get("NETRC") or str(Path.home() / ".netrc"))
        if host in entries.hosts:
            user, _, password = entries.hosts[host]
            return user, password or ""
    return None
