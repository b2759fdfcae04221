"""The assets of the Comfy API v2: what was uploaded, and the outputs of jobs."""

from __future__ import annotations

import asyncio
from pathlib import Path

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ..jobs.distant_file import DistantFile
from ..jobs.record import Record
from .asset_files import Asset, AssetFiles, suffix
from .asset_references import output_of
from .derived_pictures import DerivedPictures
from .file_answers import file_answer
from .job_answers import PREFIX, JobAnswers, base
from .job_desk import JobDesk
from .job_outputs import JobOutputs
from .output_files import OutputFile
from .refused import Refused, not_found
from .requested import json_object
from .uploads import Upload, receive


class AssetsApi:
    """Its endpoints; `router` has them all."""

    def __init__(
        self, desk: JobDesk, files: AssetFiles, answers: JobAnswers, outputs: JobOutputs,
        pictures: DerivedPictures,
    ) -> None:  # fmt: skip
        self._desk, self._files, self._answers, self._outputs = desk, files, answers, outputs
        self._pictures = pictures
        self.router = APIRouter(prefix=f"{PREFIX}/assets")
        add = self.router.add_api_route
        add("", self.upload, methods=["POST"])
        add("/from-hash", self.from_hash, methods=["POST"])
        add("/by-hash/{digest}", self.by_hash, methods=["HEAD"])
        add("/{asset}", self.get, methods=["GET"])
        add("/{asset}", self.delete, methods=["DELETE"])
        add("/{asset}/content", self.content, methods=["GET"])
        add("/{asset}/content", self.content, methods=["HEAD"], include_in_schema=False)

    async def upload(self, request: Request) -> Response:
        """Upload a file: multipart with `file`, `file_path` and, if wanted, `expected_hash`."""
        upload = await receive(request, self._files.parts, "file")
        try:
            asset, new = await asyncio.to_thread(self._place, upload)
        finally:
            if upload.part is not None:
                upload.part.unlink(missing_ok=True)
        return self._answer(asset, request, upload.fields["file_path"], new=new)

    async def from_hash(self, request: Request) -> Response:
        """The asset with the bytes of this `hash`, blake3, which were uploaded before."""
        body = await json_object(request)
        digest, name = body.get("hash"), body.get("file_path")
        if not isinstance(digest, str) or not isinstance(name, str | None):
            raise Refused(422, "invalid_request", "'hash' or 'file_path' is no text")
        asset = await asyncio.to_thread(self._files.named, _hex(digest), suffix(name or ""))
        if asset is None:
            raise Refused(404, "blob_not_found", "there is no asset with this hash")
        if name:
            await asyncio.to_thread(self._files.call, asset, name)
        return self._answer(asset, request, name or asset.id, new=False)

    async def by_hash(self, digest: str) -> Response:
        """Whether there is such an asset."""
        asset = await asyncio.to_thread(self._files.find, _hex(digest))
        return Response(status_code=404 if asset is None else 200)

    async def get(self, request: Request, asset: str) -> Response:
        """About an asset: what was uploaded, or an output."""
        if (known := await asyncio.to_thread(self._files.get, asset)) is not None:
            return JSONResponse(self._answers.asset(known, base(request)))
        record, output, file = await self._output(asset)
        size = file.stat().st_size if isinstance(file, Path) else file.size
        return JSONResponse(self._answers.output_asset(output, record, size, base(request)))

    async def delete(self, asset: str) -> Response:
        """Delete what was uploaded."""
        if not await asyncio.to_thread(self._files.delete, asset):
            raise not_found(f"uploaded asset {asset[:80]}")
        return Response(status_code=204)

    async def content(self, request: Request, asset: str) -> Response:
        """Its bytes, or a Range of them; of a picture that a job has made, with `preview` as of
        `/view` a smaller one. 410: they are gone; 503: their machine doesn't answer now."""
        if (known := await asyncio.to_thread(self._files.get, asset)) is not None:
            return file_answer(request, known.path, known.id)
        _, output, file = await self._output(asset)
        if output.kind == "image" and request.query_params.get("preview"):
            return await self._pictures.derived(request, file, output.name)
        return file_answer(request, file, output.name)

    async def _output(self, asset: str) -> tuple[Record, OutputFile, Path | DistantFile]:
        """An output, and its file. Raises Refused."""
        output = await output_of(asset, self._desk, self._answers)
        if output is None:
            raise not_found(f"asset {asset[:80]}")
        record = (await self._desk.find(output.job)).record
        return record, output, await self._outputs.find(record, output)

    def _place(self, upload: Upload) -> tuple[Asset, bool]:
        name = upload.fields.get("file_path", "")
        if upload.part is None:
            raise Refused(422, "invalid_request", "there is no part 'file'")
        if not name or ".." in Path(name).parts or "\0" in name:
            raise Refused(422, "invalid_request", "'file_path' is missing or leads elsewhere")
        if Path(name).parts[0] == "models":
            raise Refused(422, "invalid_request", "models are declared in machine.yaml")
        expected = upload.fields.get("expected_hash", "")
        if expected and _hex(expected.lower()) != upload.digest:
            raise Refused(409, "hash_mismatch", "the bytes don't have the expected hash")
        kind = upload.fields.get("content_type") or upload.content_type
        asset, new = self._files.place(upload.part, upload.digest, name, kind)
        self._files.call(asset, name)
        return asset, new

    def _answer(self, asset: Asset, request: Request, name: str, *, new: bool) -> Response:
        body = self._answers.asset(asset, base(request), file_path=name, created_new=new)
        return JSONResponse(body, 201 if new else 200)


def _hex(digest: str) -> str:
    return digest.removeprefix("blake3:")
