"""Pictures that ComfyUI makes of a file: smaller ones, and channels. An instance makes them."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from ..jobs.distant_file import Absent, DistantFile, Silent
from .asset_files import AssetFiles
from .file_answers import file_answer
from .home_instance import HomeInstance
from .refused import Refused

AT_ONCE = 8
"""Pictures that are made at the same time; others wait."""


class DerivedPictures:
    """Asks the home instance. It sees the inputs, but not what others wrote: such a file is linked
    there meanwhile."""

    def __init__(self, files: AssetFiles, home: HomeInstance) -> None:
        self._files, self._home = files, home
        self._places = asyncio.Semaphore(AT_ONCE)

    async def derived(self, request: Request, file: Path | DistantFile, name: str) -> Response:
        """What `preview` and `channel` of the request ask for; the file as it is where no instance
        makes that of it. Raises OSError."""
        query = {k: v for k, v in request.query_params.items() if k in ("preview", "channel")}
        try:
            async with self._places, linked(file, self._files.parts) as link:
                about = {"filename": link.name, "subfolder": link.parent.name, "type": "input"}
                made = await self._home.forward(request, f"/view?{urlencode(query | about)}")
        except (OSError, Refused, Absent, Silent):
            return file_answer(request, file, name)
        if made.status_code >= 400:
            made.drop()
            return file_answer(request, file, name)
        made.headers["Content-Disposition"] = "inline"
        return made


@asynccontextmanager
async def linked(file: Path | DistantFile, folder: Path) -> AsyncIterator[Path]:
    """The file in this folder meanwhile. Raises OSError, and Absent and Silent for one of another
    machine."""
    link = folder / f"{secrets.token_hex(8)}.part"
    try:
        if isinstance(file, Path):
            await asyncio.to_thread(_link, file, link)
        else:
            link, _ = await file.keep(folder)
        yield link
    finally:
        await asyncio.to_thread(link.unlink, missing_ok=True)


def _link(path: Path, link: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(path, link)
    except OSError:
        # Another file system, or one without links.
        shutil.copyfile(path, link)
