"""The instance whose page, settings and user data the pool shows as its own."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

import aiohttp
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from yarl import URL

from .admission import is_loopback
from .announced_instances import AnnouncedInstances
from .refused import Refused
from .requested import pieces

CONNECT, SILENCE, ANSWER = 5.0, 60.0, 5.0
"""Seconds to connect, between two pieces of an answer, and for an answer that we read ourselves."""
LONGEST_ANSWER = 4 << 30
"""Bytes of an answer that is passed on; a longer one is cut off."""
LONGEST_OURS = 4 << 20
"""Bytes of an answer that we read ourselves."""
LONGEST_BODY = 256 << 20
"""Bytes of a request that is passed on."""
CONNECTIONS = 128
PIECE = 64 << 10
ASKS = frozenset(
    "accept accept-encoding accept-language cache-control comfy-user if-modified-since "
    "if-none-match if-range range sec-fetch-dest sec-fetch-mode sec-fetch-site".split()
)
"""Headers of a request that are passed on."""
SENDS = ASKS | {"content-length", "content-type"}
"""Those of one with a body."""
TELLS = frozenset(
    "accept-ranges cache-control content-disposition content-encoding content-length content-range "
    "content-security-policy content-type etag expires last-modified pragma vary "
    "x-content-type-options".split()
)
"""Headers of an answer that are passed on."""
NO_PATH = re.compile(rb"[\x00-\x1f\x7f\\]|(?:^|/)\.\.?(?:/|$)|^//")
READS = ("GET", "HEAD")
# An answer that breaks off is told to the client by the end of its connection, and is no error of
# ours.
logging.getLogger("uvicorn.error").addFilter(lambda said: "without completing" not in said.msg)


class HomeInstance:
    """The first by its name of this machine's instances: the same one whenever it is there."""

    def __init__(self, instances: AnnouncedInstances, machine: str) -> None:
        self._instances, self._machine = instances, machine
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    @property
    def url(self) -> str:
        """Where it is. Raises Refused while there is none."""
        for each in self._instances.now():
            # Other machines announce their own loopback addresses.
            if each.machine in ("", self._machine) and is_loopback(_host(each.url)):
                return each.url
        raise _absent("there is no instance on this machine yet")

    async def forward(self, request: Request, instead: str = "") -> Passed:
        """Its answer, as it comes; `instead`: a path with its query in place of the request's.
        Raises Refused."""
        url = f"{self.url}{instead or _target(request)}"
        body = None if request.method in READS else _Body(request)
        kept = SENDS if body else ASKS
        try:
            answer = await self._client().request(
                request.method,
                URL(url, encoded=True),
                headers={k: v for k, v in request.headers.items() if k in kept},
                data=body.pieces() if body else None,
                allow_redirects=False,
            )
        except (OSError, aiohttp.ClientError, asyncio.TimeoutError, ValueError) as error:
            if body and body.failed:
                raise body.failed from None
            raise _absent(f"the instance at {self.url} doesn't answer") from error
        headers = {k.lower(): v for k, v in answer.headers.items() if k.lower() in TELLS}
        if (location := answer.headers.get("Location", "")) and re.match(r"/(?![/\\])", location):
            headers["location"] = location
        return Passed(answer, headers)

    async def post(self, path: str, form: aiohttp.FormData) -> Response:
        """Its answer to a form of ours. Raises Refused."""
        try:
            async with self._client().post(f"{self.url}{path}", data=form) as answer:
                text = await answer.content.read(PIECE)
                return Response(text, answer.status, media_type=answer.content_type)
        except (OSError, aiohttp.ClientError, asyncio.TimeoutError) as error:
            raise _absent(f"the instance at {self.url} doesn't answer") from error

    async def json(self, path: str) -> dict[str, Any]:
        """What it says at a path; empty: no JSON object, or it doesn't answer."""
        try:
            timeout = aiohttp.ClientTimeout(total=ANSWER)
            headers = {"Accept-Encoding": "identity"}
            async with self._client().get(
                f"{self.url}{path}", timeout=timeout, headers=headers
            ) as answer:
                text = await answer.content.read(LONGEST_OURS)
                while len(text) < LONGEST_OURS and (more := await answer.content.read(PIECE)):
                    text += more
                found = json.loads(text) if answer.status == 200 else {}
        except (OSError, aiohttp.ClientError, asyncio.TimeoutError, Refused):
            return {}
        except (ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=CONNECTIONS, ssl=False),
                timeout=aiohttp.ClientTimeout(
                    total=None, connect=SILENCE, sock_connect=CONNECT, sock_read=SILENCE
                ),
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
                skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent"),
            )
        return self._session


class _Body:
    """A request's body on its way; `failed` is why it didn't come whole."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self.failed: Exception | None = None

    async def pieces(self) -> AsyncIterator[bytes]:
        try:
            async for piece in pieces(self._request, LONGEST_BODY):
                yield piece
        except (Refused, ClientDisconnect) as error:
            self.failed = error
            raise


class Passed(StreamingResponse):
    """An instance's answer; the connection to it ends with ours. One that isn't given to a client
    has to be dropped."""

    def __init__(self, answer: aiohttp.ClientResponse, headers: dict[str, str]) -> None:
        self._answer = answer
        super().__init__(self._pieces(), answer.status, headers)

    async def _pieces(self) -> AsyncIterator[bytes]:
        total = 0
        # A cut is the only way left to say that the rest doesn't come.
        async for piece in self._answer.content.iter_chunked(PIECE):
            total += len(piece)
            if total > LONGEST_ANSWER:
                raise ConnectionResetError
            yield piece

    async def __call__(self, *about: Any) -> None:
        try:
            await super().__call__(*about)
        except (OSError, aiohttp.ClientError, asyncio.TimeoutError):
            pass
        finally:
            self.drop()

    def drop(self) -> None:
        if not self._answer.content.at_eof():
            self._answer.close()
        self._answer.release()


def _target(request: Request) -> str:
    """What it asks for. Raises Refused."""
    path = request.scope["raw_path"].partition(b"?")[0]
    if NO_PATH.search(unquote_to_bytes(path)):
        raise Refused(400, "invalid_request", "this is no path")
    asked = request.scope["query_string"].decode("latin-1")
    return f"{path.decode('latin-1')}{'?' if asked else ''}{asked}"


def _host(url: str) -> str:
    return urlsplit(url).hostname or ""


def _absent(why: str) -> Refused:
    return Refused(503, "deployment_not_ready", why, headers={"Retry-After": "2"})
