"""Files as answers over HTTP, from this machine or another: HEAD and Range are honoured."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse

from ..jobs.distant_file import Absent, DistantFile, Silent
from .asset_files import content_type
from .refused import Refused

SHOWN = ("image/", "video/", "audio/")
"""What a browser may show; everything else it saves."""
ACTIVE = ("image/svg+xml",)
RANGE = re.compile(r"bytes=(\d*)-(\d*)")
STREAMS = 64
"""Files of other machines that are sent at once: each holds up to 2 MB of memory."""


class _Streams:
    now = 0


def file_answer(request: Request, file: Path | DistantFile, name: str) -> Response:
    """What could run in a browser is saved instead. Raises Refused."""
    kind = content_type(name)
    shown = kind.startswith(SHOWN) and kind not in ACTIVE
    local = _Local(
        file if isinstance(file, Path) else name,
        media_type=kind,
        filename=name,
        content_disposition_type="inline" if shown else "attachment",
        headers={"X-Content-Type-Options": "nosniff"},
    )
    return local if isinstance(file, Path) else _distant(request, file, local)


def _distant(request: Request, file: DistantFile, like: Response) -> Response:
    first, end, status = 0, file.size, 200
    headers = {**like.headers, "Accept-Ranges": "bytes"}
    # Whoever has a part of another file, or of this one before, can't tell: then all is sent.
    asked = request.headers.get("range", "") if "if-range" not in request.headers else ""
    if (found := RANGE.fullmatch(asked.strip())) and any(found.groups()):
        first, end = _range(found[1], found[2], file.size)
        status, headers["Content-Range"] = 206, f"bytes {first}-{end - 1}/{file.size}"
    headers["Content-Length"] = str(end - first)
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers)
    if _Streams.now >= STREAMS:
        raise Refused(
            429, "too_many_streams", f"{STREAMS} files of other machines are being sent",
            headers={"Retry-After": "5"},
        )  # fmt: skip
    return _Sent(_pieces(file, first, end), status, headers)


def _range(first: str, last: str, size: int) -> tuple[int, int]:
    """The first byte and the one after the last. Raises Refused."""
    if not first:
        begin, end = max(0, size - int(last)), size
    else:
        begin, end = int(first), min(size, int(last) + 1) if last else size
    if begin >= end:
        raise Refused(
            416, "invalid_range", f"the file has {size} bytes",
            headers={"Content-Range": f"bytes */{size}"},
        )  # fmt: skip
    return begin, end


class _Local(FileResponse):
    """One that is removed as it is asked for ends in a cut, too."""

    async def __call__(self, *about: Any) -> None:
        with suppress(FileNotFoundError):
            await super().__call__(*about)


class _Sent(StreamingResponse):
    """A cut is the only way left to say that the rest doesn't come."""

    async def __call__(self, *about: Any) -> None:
        with suppress(Absent, Silent):
            await super().__call__(*about)


async def _pieces(file: DistantFile, first: int, end: int) -> AsyncIterator[bytes]:
    _Streams.now += 1
    try:
        async for piece in file.read(first, end):
            yield piece
    finally:
        _Streams.now -= 1
