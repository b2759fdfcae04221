"""Pictures that jobs make and have made: fetched from the gateway when one is wanted, and kept for
a while.

Each is fetched in a thread of its own, so a gateway that hangs keeps nothing else waiting.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

from . import gateway_link
from .gateway_link import Silent

PICTURES = "/health/comfyui/pictures/"
THUMBNAILS = "/health/comfyui/thumbnails/"
PREVIEWS = "/health/comfyui/previews/"
CONTENT = "/api/v2/assets/{asset}/content"
SMALLER = f"{CONTENT}?preview=webp%3B60"
"""As an instance makes it: of the same size, but a tenth of the bytes."""
SHOWN = "/api/v2/jobs/{job}/preview"
KINDS = ("image/png", "image/jpeg", "image/webp", "image/gif", "image/avif")
"""Not SVG, which may hold scripts."""
TIMEOUT = 5.0
"""Seconds that the gateway may take for one."""
LARGEST = 8 << 20
"""Bytes of a picture that is shown."""
KEPT = 32 << 20
"""Bytes of all that are kept."""
MOST_WANTED = 8
"""Pictures that are fetched at once: a browser has six connections to one server."""
_JOB = re.compile(r"[0-9a-f-]{36}")
_ASSET = re.compile(rf"{_JOB.pattern}\.[0-9a-f]{{24}}")


@dataclass(frozen=True)
class Picture:
    """The bytes of an image, and their type."""

    content: bytes
    content_type: str


def picture(asset: str) -> str:
    """Where this server has the picture of this asset; empty: that is no asset of a job."""
    return f"{PICTURES}{asset}" if _ASSET.fullmatch(asset) else ""


def thumbnail(asset: str) -> str:
    """The same for a smaller form of it."""
    return f"{THUMBNAILS}{asset}" if _ASSET.fullmatch(asset) else ""


def preview(job: str, at: float) -> str:
    """The same for what a running job showed at this time, in seconds since the epoch."""
    return f"{PREVIEWS}{job}?at={at:.3f}" if _JOB.fullmatch(job) else ""


class Pictures:
    """May be used from any thread; `gateway` is where it is reached, None: there is none."""

    def __init__(self, gateway: Callable[[], str | None]) -> None:
        self._gateway = gateway
        self._kept: OrderedDict[str, Picture] = OrderedDict()
        self._wanted: dict[str, Future[Picture]] = {}
        self._lock = threading.Lock()

    def get(self, path: str) -> Future[Picture]:
        """The picture at this path of the gateway, now or later. Its result raises Silent.

        Raises Silent when too many are wanted.
        """
        with self._lock:
            if (kept := self._kept.get(path)) is not None:
                self._kept.move_to_end(path)
                done: Future[Picture] = Future()
                done.set_result(kept)
                return done
            if (wanted := self._wanted.get(path)) is not None:
                return wanted
            if len(self._wanted) >= MOST_WANTED:
                raise Silent("the gateway is slow: too many pictures are wanted")
            future: Future[Picture] = Future()
            # Not of a pool: the end of this server would wait for its threads.
            threading.Thread(target=self._fetch, args=(path, future), daemon=True).start()
            self._wanted[path] = future
            return future

    def _fetch(self, path: str, future: Future[Picture]) -> None:
        try:
            picture = self._ask(path)
        except Exception as error:
            with self._lock:
                del self._wanted[path]
            future.set_exception(error)
            return
        with self._lock:
            del self._wanted[path]
            self._kept[path] = picture
            while sum(len(each.content) for each in self._kept.values()) > KEPT:
                self._kept.popitem(last=False)
        future.set_result(picture)

    def _ask(self, path: str) -> Picture:
        if (gateway := self._gateway()) is None:
            raise Silent("there is no gateway")
        answer = gateway_link.ask(gateway, path, TIMEOUT, LARGEST)
        kind = answer.headers.get_content_type()
        if kind not in KINDS:
            raise Silent(f"it is no picture but {kind[:80]}")
        return Picture(answer.content, kind)
