"""Images that clients read and send; no path leads out of its directory."""

from __future__ import annotations

import mimetypes
import os
from pathlib import Path

import folder_paths
from simulation import images
from simulation.flags import SINCE_2026
from simulation.http import web

_NEVER_SHOWN = {
    "text/html", "text/html-sandboxed", "application/xhtml+xml", "text/javascript", "text/css",
}  # fmt: skip
_NEVER_SHOWN_SINCE_2026 = {
    "application/javascript", "application/x-javascript", "application/ecmascript",
    "image/svg+xml", "application/xml", "text/xml", "message/rfc822",
}  # fmt: skip


def make_input_folder() -> None:
    """Make the input directory's folder for 3D models, as looking at real nodes does."""
    Path(folder_paths.get_input_directory(), "3d").mkdir(parents=True, exist_ok=True)


def _inside(root: str, relative: str) -> Path | None:
    """The path of relative below root, or None if it is elsewhere."""
    path = Path(os.path.abspath(Path(root, relative)))  # noqa: PTH100
    return path if path.is_relative_to(root) else None


async def view(request: web.Request) -> web.StreamResponse:
    """GET /view: a file of the output, input or temporary directory."""
    query = request.query
    if "filename" not in query:
        return web.Response(status=404)
    name, root = folder_paths.annotated_filepath(query["filename"])
    if not name or name.startswith("/") or ".." in name:
        return web.Response(status=400)
    root = root or folder_paths.get_directory_by_type(query.get("type", "output"))
    if root is None:
        return web.Response(status=400)
    folder = _inside(root, query.get("subfolder", ""))
    if folder is None:
        return web.Response(status=403)
    file = folder / Path(name).name
    if not file.is_file():
        return web.Response(status=404)
    headers = {"Content-Disposition": f'filename="{file.name}"'}
    channel = query.get("channel")
    if "preview" in query or channel in ("rgb", "a"):
        body, kind = images.convert(file, channel=channel, preview=query.get("preview"))
        return web.Response(body=body, content_type=kind, headers=headers)
    guess = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
    if not SINCE_2026:
        kind = "application/octet-stream" if guess in _NEVER_SHOWN else guess
        return web.FileResponse(file, headers={**headers, "Content-Type": kind})
    headers["X-Content-Type-Options"] = "nosniff"
    if guess in _NEVER_SHOWN | _NEVER_SHOWN_SINCE_2026 or guess.endswith(("+xml", "/xml")):
        headers |= {"Vary": "Sec-Fetch-Dest", "Cache-Control": "no-store"}
        if (guess, request.headers.get("Sec-Fetch-Dest")) != ("image/svg+xml", "image"):
            guess = "application/octet-stream"
            headers["Content-Disposition"] = f'attachment; filename="{file.name}"'
    return web.FileResponse(file, headers={**headers, "Content-Type": guess})


async def upload(request: web.Request) -> web.Response:
    """POST /upload/image: keep a file; one of the same name and content is kept as it is."""
    form = await request.post()
    image = form.get("image")
    if not isinstance(image, web.FileField) or not image.filename:
        return web.Response(status=400)
    kind = str(form.get("type", "input"))
    root = folder_paths.get_directory_by_type(kind)
    if root is None:
        raise ValueError(f"no such directory type: {kind}")
    subfolder = str(form.get("subfolder", ""))
    file = _inside(root, os.path.join(os.path.normpath(subfolder), image.filename))  # noqa: PTH118
    if file is None:
        return web.Response(status=400)
    file.parent.mkdir(parents=True, exist_ok=True)
    data = image.file.read()
    stem, number = file.stem, 1
    if form.get("overwrite") not in ("true", "1"):
        while file.exists() and file.read_bytes() != data:
            file = file.with_name(f"{stem} ({number}){file.suffix}")
            number += 1
    if not file.exists() or file.read_bytes() != data:
        file.write_bytes(data)
    return web.json_response({"name": file.name, "subfolder": subfolder, "type": kind})
