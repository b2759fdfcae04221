"""Which web pages may talk to the server from a browser."""

from __future__ import annotations

import ipaddress
import logging
from typing import Any
from urllib.parse import urlsplit

from simulation.flags import SINCE_2026, args
from simulation.http import web


def middleware() -> Any:
    """Any page of the origin of --enable-cors-header, else only the server's own."""
    return allow_origin if args.enable_cors_header else own_origin_only


@web.middleware
async def allow_origin(request: web.Request, handler: Any) -> web.StreamResponse:
    """Answer with the origin of --enable-cors-header."""
    preflight = request.method == "OPTIONS"
    response: web.StreamResponse = web.Response() if preflight else await handler(request)
    if not response.prepared:
        response.headers["Access-Control-Allow-Origin"] = args.enable_cors_header
        methods = "POST, GET, DELETE, PUT, OPTIONS" + (", PATCH" if SINCE_2026 else "")
        response.headers["Access-Control-Allow-Methods"] = methods
        response.headers["Access-Control-Allow-Headers"] = "Content-Type, Authorization"
        response.headers["Access-Control-Allow-Credentials"] = "true"
    return response


@web.middleware
async def own_origin_only(request: web.Request, handler: Any) -> web.StreamResponse:
    """Refuse what a page of another site asks a server on loopback; since 2026 any server."""
    if SINCE_2026 and request.headers.get("Sec-Fetch-Site") == "cross-site":
        return web.Response(status=403)
    if "Host" in request.headers and "Origin" in request.headers:
        host = urlsplit("//" + request.headers["Host"].lower())
        origin = urlsplit(request.headers["Origin"].lower())
        ports = None not in (host.port, origin.port)
        same = host.hostname == origin.hostname and (not ports or host.port == origin.port)
        if _is_loopback(host.hostname) and origin.hostname and not same:
            logging.warning(
                "WARNING: request with non matching host and origin %s != %s, returning 403",
                host.netloc,
                origin.netloc,
            )
            return web.Response(status=403)
    if request.method == "OPTIONS":
        return web.Response()
    response: web.StreamResponse = await handler(request)
    return response


def _is_loopback(host: str | None) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False
