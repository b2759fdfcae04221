"""Refuses new jobs while this instance is drained: `POST /prompt` gets 503 and Retry-After.

`COMFY_MACHINE_DRAIN` names the mark. A mark that was there before this process belongs to its
predecessor: the run that drained that one removes it once this process is healthy.

`GET /prompt` then has a header with the number of jobs that are still being submitted. While it is
there, the queue can only grow by these. Everything else stays open.
"""

from __future__ import annotations

import os
from typing import Any

from . import hooks

MARK = "COMFY_MACHINE_DRAIN"
PATHS = ("/prompt", "/api/prompt")
SUBMITTED = "Comfy-Machine-Submitted"
"""The header; `tasks/host/comfyui/api.py` reads it."""
RETRY_AFTER = 5
"""Seconds; ComfyUI starts in about ten."""
WHY = "this instance takes no new jobs, since it is about to restart: repeat the request later"


def attach() -> None:
    """Add a middleware to ComfyUI's server once that is made.

    A ComfyUI without such a server isn't changed; then nothing sends the header.
    """
    refusal = Refusal(os.environ[MARK])
    hooks.after_import("server", refusal.guard)


class Refusal:
    """Whether this process refuses jobs, and how many it is taking."""

    def __init__(self, mark: str) -> None:
        self._mark = mark
        self._inherited = self._look()
        self._submitted = 0

    def _look(self) -> tuple[int, int] | None:
        """What tells one mark from the next; None: there is none."""
        try:
            status = os.stat(self._mark)  # noqa: PTH116
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns

    def draining(self) -> bool:
        mark = self._look()
        if mark is None:
            self._inherited = None
        return mark not in (None, self._inherited)

    def guard(self, server: Any) -> None:
        """Add the middleware to each PromptServer of this module."""
        from aiohttp import web  # type: ignore[import-not-found,unused-ignore]

        make = server.PromptServer.__init__

        def __init__(this: Any, *arguments: Any, **options: Any) -> None:  # noqa: N807
            make(this, *arguments, **options)
            try:
                # The last one is called last: what a middleware before it awaits is refused too.
                this.app.middlewares.append(self._middleware(web))
            except Exception:
                hooks.complain()

        server.PromptServer.__init__ = __init__

    def _middleware(self, web: Any) -> Any:
        async def refuse_jobs(request: Any, handler: Any) -> Any:
            if request.path not in PATHS or request.method not in ("GET", "POST"):
                return await handler(request)
            draining = self.draining()
            if request.method == "GET":
                submitted = self._submitted
                response = await handler(request)
                if draining:
                    response.headers[SUBMITTED] = str(submitted)
                return response
            if draining:
                error = {"type": "draining", "message": WHY, "details": "", "extra_info": {}}
                return web.json_response(
                    {"error": error, "node_errors": {}},
                    status=503,
                    headers={"Retry-After": str(RETRY_AFTER)},
                )
            self._submitted += 1
            try:
                return await handler(request)
            finally:
                self._submitted -= 1

        return web.middleware(refuse_jobs)
