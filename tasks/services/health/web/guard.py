"""Who may ask what: pure ASGI, in front of everything else."""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
import re
import time

import anyio
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from ....host.system.log_once import LogOnce
from ..model.answers import Refusal

_HOST = re.compile(r"(?:\[([^\[\]]+)\]|([^:@/\[\]]+))(?::\d*)?")
"""An IPv6 address in brackets, or another name; then a port."""
PROBES = ("/livez", "/readyz")
"""Paths that answer any client, with yes or no only."""


def refusal(code: int, reason: str, advice: str, **headers: str) -> Response:
    """A refusal as an HTTP answer."""
    body = Refusal(status="error", code="Refused", since=round(time.time(), 1),
                   reason=reason, advice=advice)  # fmt: skip
    return Response(
        body.model_dump_json(), code, headers=headers or None, media_type="application/json"
    )


def _malformed() -> bytes:
    body = refusal(400, "this isn't an HTTP request", "see /openapi.json").body
    head = "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + bytes(body)


REFUSED = _malformed()
"""The answer to a request that isn't HTTP."""


class Guard:
    """Requires the token; if none is configured, it admits only clients on this machine."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        # A token read from a file may end with a newline; a header can't.
        self._token = token.strip().encode(errors="surrogateescape")
        self._log_once = LogOnce()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refused = self._refuse(scope) if scope["type"] == "http" else None
        try:
            await (refused or self._app)(scope, receive, send)
        except Exception as error:
            # The client has got a 500; log the fault once, not per request.
            if scope["type"] != "http":
                raise
            if not _is_disconnect(error):
                self._log_once.log()

    def _refuse(self, scope: Scope) -> Response | None:
        if scope["path"] in PROBES:
            return None
        headers = Headers(scope=scope)
        if self._token:
            if _has_token(self._token, headers.get("authorization", "")):
                return None
            return refusal(
                401, "the token is missing or wrong", "send it: Authorization: Bearer …",
                **{"WWW-Authenticate": 'Basic realm="comfy-machine", charset="UTF-8"'},
            )  # fmt: skip
        if not _is_local(scope):
            return refusal(
                403, "without a token only /livez and /readyz answer beyond this machine",
                "set HEALTH_TOKEN, or health.token in machine.yaml",
            )  # fmt: skip
        # A web page may point its own name at this machine (DNS rebinding).
        if not _is_localhost(headers.get("host", "localhost")):
            return refusal(403, "the host isn't localhost", "ask 127.0.0.1, or set health.token")
        return None


def _is_disconnect(error: BaseException) -> bool:
    """Whether a client that follows the events disconnected during a send (FastAPI 0.165)."""
    inner = getattr(error, "exceptions", None)
    return (
        all(map(_is_disconnect, inner)) if inner else isinstance(error, anyio.BrokenResourceError)
    )


def _has_token(token: bytes, authorization: str) -> bool:
    """Whether the header has the token, as a bearer token or as a basic password."""
    kind, _, text = authorization.partition(" ")
    # Starlette decodes headers as Latin-1; clients send UTF-8.
    sent = text.encode("latin-1")
    if kind.lower() == "basic":
        try:
            _, _, sent = base64.b64decode(sent, validate=True).partition(b":")
        except binascii.Error:
            return False
    elif kind.lower() != "bearer":
        return False
    return hmac.compare_digest(sent.strip(), token)


def _is_local(scope: Scope) -> bool:
    """Whether both ends of the connection are on the loopback interface."""
    ends = (scope.get("client"), scope.get("server"))
    return all(end is not None and _is_loopback(str(end[0])) for end in ends)


def _is_loopback(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _is_localhost(host: str) -> bool:
    """Whether a Host header, with or without port, names the loopback interface."""
    found = _HOST.fullmatch(host)
    name = (found[1] or found[2]).lower() if found else ""
    return name == "localhost" or _is_loopback(name)
