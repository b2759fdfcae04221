"""What goes along with a request: the token of exactly its host, or what ~/.netrc has for it."""

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
    """A token that no header can hold; the argument is its variable."""


def authorization(
    url: str, token: Callable[[str], tuple[str | None, str | None]]
) -> dict[str, str]:
    """The header for a request to `url`, redirected there or not; `token` knows its variable.

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
    if known := _netrc(parts.hostname or ""):
        encoded = base64.b64encode(":".join(known).encode()).decode()
        return {"Authorization": f"Basic {encoded}"}
    return {}


def _netrc(host: str) -> tuple[str, str] | None:
    """User and password of exactly this host, without its port; from $NETRC or ~/.netrc.

    Its `default` entry is never used: redirects lead to hosts that the user doesn't know.
    """
    with contextlib.suppress(OSError, netrc.NetrcParseError, RuntimeError, UnicodeError):
        known = netrc.netrc(os.environ.get("NETRC") or str(Path.home() / ".netrc"))
        if host in known.hosts:
            user, _, password = known.hosts[host]
            return user, password or ""
    return None
