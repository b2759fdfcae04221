"""What goes along with a request: the token of exactly its host, or what ~/.netrc has for it."""

from __future__ import annotations

import contextlib
import netrc
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import requests


class UnusableToken(ValueError):  # noqa: N818  reads as what it is
    """A token that no header can hold; the argument is its variable."""


class Credentials:
    """requests' hook for credentials, called for every single request, redirected or not."""

    def __init__(self, token: Callable[[str], tuple[str | None, str | None]]) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        from requests.auth import HTTPBasicAuth

        url = request.url or ""
        if urlsplit(url).scheme != "https":
            return request
        name, token = self._token(url)
        if token:
            if not re.fullmatch(r"[\x21-\x7e]+", token):
                raise UnusableToken(name)
            request.headers["Authorization"] = f"Bearer {token}"
        elif known := _netrc(urlsplit(url).hostname or ""):
            HTTPBasicAuth(*known)(request)
        return request


def _netrc(host: str) -> tuple[str, str] | None:
    """User and password of exactly this host, without its port; from $NETRC or ~/.netrc.

    Its `default` entry is for nobody: we are redirected to hosts that the user never heard of.
    """
    with contextlib.suppress(OSError, netrc.NetrcParseError, RuntimeError, UnicodeError):
        known = netrc.netrc(os.environ.get("NETRC") or str(Path.home() / ".netrc"))
        if host in known.hosts:
            user, _, password = known.hosts[host]
            return user, password or ""
    return None
