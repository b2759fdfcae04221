"""Who asks: a token becomes the name of an owner."""

from __future__ import annotations

import base64
import hmac
import ipaddress
from collections.abc import Callable

from starlette.requests import HTTPConnection

from .refused import Refused

OWNER = "owner"
"""Of the jobs of the one token there is."""
LOCAL = "local"
"""Of jobs that were submitted without a token, on this machine."""
Admission = Callable[[HTTPConnection], str]


def admission(token: str) -> Admission:
    """The dependency of every endpoint: it returns the owner or raises Refused. Browsers, which
    know no tokens, may send it as the password of Basic authentication.

    Without a token only clients on this machine are admitted.
    """
    expected = token.strip().encode(errors="surrogateescape")

    def owner(connection: HTTPConnection) -> str:
        if not expected:
            _require_local(connection)
            return LOCAL
        kind, _, sent = connection.headers.get("authorization", "").partition(" ")
        # Starlette decodes headers as Latin-1; clients send UTF-8.
        found = sent.strip().encode("latin-1")
        if kind.lower() == "basic":
            _require_same_site(connection)
            found = _password(found)
        elif kind.lower() != "bearer":
            found = b""
        if not hmac.compare_digest(found, expected):
            raise Refused(
                401,
                "unauthorized",
                "the token is missing or wrong; send it: Authorization: Bearer …, or as a password",
                headers={"WWW-Authenticate": 'Basic realm="comfy-machine", charset="UTF-8"'},
            )
        return OWNER

    return owner


def _password(sent: bytes) -> bytes:
    """Of Basic authentication, whoever the user is; empty where it is none."""
    try:
        return base64.b64decode(sent, validate=True).partition(b":")[2]
    except ValueError:
        return b""


def _require_same_site(connection: HTTPConnection) -> None:
    """A browser adds a password that it knows to what any site asks. Raises Refused."""
    origin = connection.headers.get("origin")
    same = origin is None or origin.rpartition("//")[2] == connection.headers.get("host")
    site, mode = map(connection.headers.get, ("sec-fetch-site", "sec-fetch-mode"))
    if not same or (site == "cross-site" and mode != "navigate"):
        raise Refused(403, "forbidden", "another site asked for this")


def _require_local(connection: HTTPConnection) -> None:
    ends = (connection.scope.get("client"), connection.scope.get("server"))
    if not all(end and is_loopback(str(end[0])) for end in ends):
        raise Refused(403, "forbidden", "without a token only this machine is answered")
    # A web page may point its own name at this machine, or post to it from another site.
    for value in (connection.headers.get("host", ""), connection.headers.get("origin", "")):
        host = value.rpartition("//")[2]
        name = host.partition("]")[0].strip("[") if "[" in host else host.partition(":")[0]
        if value and name != "localhost" and not is_loopback(name):
            raise Refused(403, "forbidden", "the host isn't localhost; ask 127.0.0.1")


def is_loopback(host: str) -> bool:
    """Whether it is an address of this machine for itself."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
