"""What ComfyUI's page needs beside jobs and files: it comes from the home instance."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Match

from .home_instance import READS, HomeInstance
from .job_answers import PREFIX
from .refused import Refused, not_found

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
WRITABLE = re.compile(r"/(?:api/)?(?:settings(?:/[^/]+)?|users|userdata/[^/]+(?:/move/[^/]+)?)")
"""Paths, as they are sent, of what the page stores at the home instance."""
ACTING = re.compile(
    r"/(?:api/)?(?:v\d+/)?(?:manager|customnode|comfyui_manager|externalmodel|snapshot)(?:/.*)?",
    re.IGNORECASE,
)
"""Paths of ComfyUI-Manager, some of which change an installation when they are read."""
OWN = ("assets", "extension")
"""Features that are one instance's, not the pool's."""


class PageApi:
    """Its endpoints; `router` has them all and comes last, since it takes every path."""

    def __init__(self, home: HomeInstance) -> None:
        self._home = home
        self.router = APIRouter()
        add = self.router.add_api_route
        add("/features", self.features, methods=["GET"])
        add("/api/features", self.features, methods=["GET"], include_in_schema=False)
        add("/{path:path}", self.other, methods=["GET"])
        others = [method for method in METHODS if method != "GET"]
        add("/{path:path}", self.other, methods=others, include_in_schema=False)

    async def features(self) -> Response:
        """What this ComfyUI can do."""
        return JSONResponse(await self.known_features())

    async def known_features(self) -> dict[str, Any]:
        """What this ComfyUI can do."""
        found = await self._home.json("/features")
        features = {key: value for key, value in found.items() if key not in OWN}
        return {**features, "supports_preview_metadata": True}

    async def other(self, request: Request) -> Response:
        """Anything else, as ComfyUI's page, its settings and its workflows: of one instance, always
        the same. What would change one instance alone is refused."""
        path = request.scope["raw_path"].decode("latin-1").partition("?")[0]
        _require_method(request)
        if path.startswith(f"{PREFIX}/") and not path.startswith(f"{PREFIX}/userdata"):
            raise not_found(f"path {path[:80]}")
        # Another site's page may let a browser read what acts in a custom node. A link is followed.
        about = request.headers
        if (
            about.get("sec-fetch-site") == "cross-site"
            and about.get("sec-fetch-mode") != "navigate"
        ):
            raise Refused(403, "forbidden", "another site asked for this")
        written = request.method not in READS and not WRITABLE.fullmatch(path)
        if written or ACTING.fullmatch(unquote(path)):
            raise Refused(
                403,
                "forbidden",
                f"this would change one instance; ask that, such as the one at {self._home.url}",
            )
        return await self._home.forward(request)


def _require_method(request: Request) -> None:
    """Raises Refused for a path of ours that hasn't this method."""
    for route in request.app.router.routes:
        if route.matches(request.scope)[0] is Match.PARTIAL:
            raise Refused(405, "method_not_allowed", "Method Not Allowed")
