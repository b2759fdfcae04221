"""Masks that are painted over a picture: an instance puts them into it and keeps the result."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
from starlette.requests import Request
from starlette.responses import Response

from ..jobs.distant_file import DistantFile
from .asset_files import AssetFiles
from .derived_pictures import linked
from .home_instance import HomeInstance
from .refused import Refused
from .uploads import Upload, receive

FIELDS = ("type", "subfolder", "overwrite")
Locate = Callable[[str, str, str], Awaitable["Path | DistantFile | None"]]


class MaskUploads:
    """The picture may be any that /view shows; the instance sees the inputs alone, where it is
    linked meanwhile."""

    def __init__(self, files: AssetFiles, home: HomeInstance, locate: Locate) -> None:
        self._files, self._home, self._locate = files, home, locate

    async def upload(self, request: Request) -> Response:
        """Keep a picture with a mask among the inputs: `image` is the mask, `original_ref` says
        which picture."""
        upload = await receive(request, self._files.parts, "image")
        try:
            if upload.part is None or upload.fields.get("type", "input") != "input":
                raise Refused(400, "invalid_request", "there is no part 'image', or no input")
            file = await self._picture(upload.fields.get("original_ref", ""))
            async with linked(file, self._files.parts) as link:
                return await self._send(upload, upload.part, link)
        finally:
            if upload.part is not None:
                upload.part.unlink(missing_ok=True)

    async def _send(self, upload: Upload, part: Path, link: Path) -> Response:
        form = aiohttp.FormData({k: v for k, v in upload.fields.items() if k in FIELDS})
        about = {"filename": link.name, "subfolder": link.parent.name, "type": "input"}
        form.add_field("original_ref", json.dumps(about))
        with part.open("rb") as mask:
            form.add_field("image", mask, filename=upload.name, content_type="image/png")
            return await self._home.post("/upload/mask", form)

    async def _picture(self, reference: str) -> Path | DistantFile:
        """The file that is meant. Raises Refused."""
        try:
            found: Any = json.loads(reference)
            name, subfolder = str(found["filename"]), str(found.get("subfolder") or "")
            file = await self._locate(name, subfolder, str(found.get("type") or "output"))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            file = None
        if file is None:
            raise Refused(400, "invalid_request", "'original_ref' is no picture that is there")
        return file
