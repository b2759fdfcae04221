"""An upload as multipart/form-data, written to a file while it comes."""

from __future__ import annotations

import asyncio
import logging
import secrets
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from blake3 import blake3
from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.requests import Request

from .refused import Refused
from .requested import pieces

# It would write a line for every form that is none.
logging.getLogger("python_multipart").setLevel(logging.CRITICAL)

LARGEST = 4 << 30
"""Bytes of an upload."""
SPARE = 1 << 30
"""Bytes that an upload must leave free on the disk."""
LONGEST_FIELD, MOST_PARTS = 64 << 10, 100
"""Bytes of a field, and parts of an upload."""


@dataclass
class Upload:
    """What came. The file is the caller's to move or remove."""

    part: Path | None = None
    """None: there was no file."""
    digest: str = ""
    """blake3 of its bytes, in hex."""
    size: int = 0
    name: str = ""
    """As the client calls it."""
    content_type: str = ""
    fields: dict[str, str] = field(default_factory=dict)


async def receive(request: Request, folder: Path, *names: str) -> Upload:
    """Read the request; the file is in the field of one of these names. Raises Refused, also
    where `folder` can't be written."""
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise Refused(422, "invalid_request", "the body is no multipart/form-data")
    sink = _Sink(folder, names)
    try:
        await asyncio.to_thread(_require_space, folder, request.headers.get("content-length", "0"))
        parser = MultipartParser(boundary, sink.callbacks())  # type: ignore[arg-type]
        async for piece in pieces(request, LARGEST):
            # In a thread: a disk may be slow, and blake3 takes a moment.
            await asyncio.to_thread(parser.write, piece)
        if not sink.ended:
            raise FormParserError("it ends in the middle")
    except BaseException as error:
        sink.close()
        if sink.upload.part is not None:
            sink.upload.part.unlink(missing_ok=True)
        if isinstance(error, FormParserError):
            raise Refused(422, "invalid_request", "the body is no multipart/form-data") from None
        if isinstance(error, OSError):
            raise Refused(507, "insufficient_storage", f"the upload failed: {error}") from None
        raise
    sink.close()
    return sink.finished()


def _require_space(folder: Path, length: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < int(length) + SPARE:
        raise Refused(507, "insufficient_storage", f"{free / 1e9:.1f} GB are free")


class _Sink:
    """Takes what the parser finds."""

    def __init__(self, folder: Path, names: tuple[str, ...]) -> None:
        self.upload = Upload()
        self._folder, self._names = folder, names
        self._hash = blake3()
        self._file: BinaryIO | None = None
        self._header, self._value = b"", b""
        self._headers: dict[str, bytes] = {}
        self._field: tuple[str, bytearray] | None = None
        self._parts = 0
        self.ended = False
        """Whether the last boundary came."""

    def callbacks(self) -> dict[str, object]:
        return {
            "on_part_begin": self._begin,
            "on_part_data": self._take,
            "on_part_end": self._end,
            "on_header_field": self._name,
            "on_header_value": self._content,
            "on_header_end": self._header_end,
            "on_headers_finished": self._open,
            "on_end": self._finish,
        }

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def finished(self) -> Upload:
        self.upload.digest = self._hash.hexdigest()
        return self.upload

    def _begin(self) -> None:
        self._headers.clear()
        self._header = self._value = b""
        self._parts += 1
        if self._parts > MOST_PARTS:
            raise Refused(422, "invalid_request", f"more than {MOST_PARTS} parts")

    def _name(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _content(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        self._headers[self._header.decode("latin-1").lower()] = self._value
        self._header = self._value = b""

    def _open(self) -> None:
        _, options = parse_options_header(self._headers.get("content-disposition", b""))
        name = options.get(b"name", b"").decode(errors="replace")
        if name not in self._names:
            self._field = (name, bytearray())
            return
        if self.upload.part is not None:
            raise Refused(422, "invalid_request", "there is more than one file")
        self.upload.name = options.get(b"filename", b"").decode(errors="replace")
        self.upload.content_type = self._headers.get("content-type", b"").decode("latin-1")
        self.upload.part = self._folder / f"{secrets.token_hex(8)}.part"
        self._file = self.upload.part.open("xb")

    def _take(self, data: bytes, start: int, end: int) -> None:
        if self._file is not None:
            self._file.write(data[start:end])
            self._hash.update(data[start:end])
            self.upload.size += end - start
        elif self._field is not None:
            self._field[1].extend(data[start:end])
            if len(self._field[1]) > LONGEST_FIELD:
                raise Refused(422, "invalid_request", f"a field is longer than {LONGEST_FIELD}")

    def _end(self) -> None:
        if self._field is not None:
            name, value = self._field
            self.upload.fields[name] = value.decode(errors="replace").strip()
        self._field = None
        self.close()

    def _finish(self) -> None:
        self.ended = True
