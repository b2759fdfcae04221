"""A file as the answer to a request."""

from __future__ import annotations

from pathlib import Path

from starlette.responses import FileResponse, Response

from .asset_files import content_type

SHOWN = ("image/", "video/", "audio/")
"""What a browser may show; everything else it saves."""
ACTIVE = ("image/svg+xml",)


def file_answer(path: Path, name: str) -> Response:
    """A file; HEAD and Range are honoured. What could run in a browser is saved instead."""
    kind = content_type(name)
    shown = kind.startswith(SHOWN) and kind not in ACTIVE
    return FileResponse(
        path,
        media_type=kind,
        filename=name,
        content_disposition_type="inline" if shown else "attachment",
        headers={"X-Content-Type-Options": "nosniff"},
    )
