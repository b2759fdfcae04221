"""Files in an object store of the user's, S3 or compatible, which all machines reach."""

from __future__ import annotations

import os
import re
import time
from collections.abc import AsyncIterator, Callable, Collection
from datetime import datetime, timezone
from functools import partial
from pathlib import Path

import obstore
from obstore.exceptions import BaseError

from ...host.system import object_store
from ..saying import say
from .distant_file import Absent, DistantFile, Silent
from .job_settings import Bucket
from .record import Record

ACCESS_KEY, SECRET_KEY = "JOBS_STORE_ACCESS_KEY", "JOBS_STORE_SECRET_KEY"
"""The variables with what the store asks for."""
PIECE = 256 << 10
"""Bytes that are passed on at once."""
PART = 8 << 20
"""Bytes of a part of a large file; four are sent at once."""
AWAY = 30.0
"""Seconds for which a store that failed isn't asked again."""
SHOWN = 300
"""Characters of what it says."""
SPARED = 86400.0
"""Seconds for which an input stays that no job names."""
JOBS, INPUTS = "jobs", "inputs"
OUTPUT = re.compile(rf"{JOBS}/([0-9a-f]{{8}}(?:-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}})/\d+/[^/]+")
INPUT = re.compile(rf"{INPUTS}/([0-9a-f]{{64}})")
"""Keys of ours; there may be others' in the same bucket."""


class ObjectFiles:
    """One that fails is left alone for a while: files are on their machines too."""

    def __init__(self, bucket: Bucket, access_key: str, secret_key: str) -> None:
        self._url, self._secrets = bucket.url, (access_key, secret_key)
        self._store = object_store.connect(
            object_store.Account(bucket.url, bucket.endpoint, bucket.region, access_key, secret_key)
        )
        self._away_until = 0.0

    @classmethod
    def from_environment(cls, bucket: Bucket | None) -> ObjectFiles | None:
        """None: there is no store. Raises KeyError without its keys."""
        if bucket is None:
            return None
        return cls(bucket, os.environ[ACCESS_KEY], os.environ[SECRET_KEY])

    @staticmethod
    def output_key(record: Record, name: str) -> str:
        """An attempt has keys of its own: the late end of another overwrites nothing."""
        return f"{JOBS}/{record.id}/{record.attempt}/{name}"

    @staticmethod
    def input_key(digest: str) -> str:
        return f"{INPUTS}/{digest}"

    async def put(self, key: str, path: Path) -> bool:
        """Whether the store has the file now."""
        try:
            self._refuse_away()
            await obstore.put_async(self._store, key, path, chunk_size=PART, max_concurrency=4)
        except (BaseError, OSError, Silent) as error:
            self._failed(f"doesn't take {key}", error)
            return False
        return True

    async def put_new(self, key: str, path: Path) -> bool:
        """The same for a file that may be there already."""
        try:
            await self.find(key)
        except Absent:
            return await self.put(key, path)
        except Silent:
            return False
        return True

    async def find(self, key: str) -> DistantFile:
        """Raises Absent and Silent."""
        self._refuse_away()
        try:
            about = await obstore.head_async(self._store, key)
        except FileNotFoundError:
            raise Absent(key) from None
        except (BaseError, OSError) as error:
            self._failed(f"doesn't tell of {key}", error)
            raise Silent(f"{self._url} doesn't answer") from None
        return DistantFile(about["size"], lambda first, end: self._read(key, first, end))

    async def forget(self, record: Record) -> None:
        """Remove the files of an attempt of which nothing came."""
        await self._remove(f"{JOBS}/{record.id}/{record.attempt}", lambda _: True, 0)

    async def sweep(self, jobs: Collection[str], digests: Collection[str], keep: float) -> None:
        """Remove the files of jobs but these that are older than `keep` seconds, and inputs that
        none of them names."""
        for folder, ours, known, spared in (
            (JOBS, OUTPUT, jobs, keep),
            (INPUTS, INPUT, digests, SPARED),
        ):
            await self._remove(folder, partial(_is_unknown, ours, known), spared)

    async def _remove(self, folder: str, is_over: Callable[[str], bool], spared: float) -> None:
        now = datetime.now(timezone.utc)
        try:
            self._refuse_away()
            async for page in obstore.list(self._store, prefix=folder):
                over = [
                    each["path"]
                    for each in page
                    if is_over(each["path"])
                    and (now - each["last_modified"]).total_seconds() >= spared
                ]
                if over:
                    await obstore.delete_async(self._store, over)
        except (BaseError, OSError, Silent) as error:
            self._failed(f"doesn't list or remove {folder}", error)

    async def _read(self, key: str, first: int, end: int) -> AsyncIterator[bytes]:
        if first >= end:
            return
        try:
            found = await obstore.get_async(self._store, key, options={"range": (first, end)})
            async for piece in found.stream(min_chunk_size=PIECE):
                yield bytes(piece)
        except FileNotFoundError:
            raise Absent(key) from None
        except (BaseError, OSError) as error:
            self._failed(f"doesn't give {key}", error)
            raise Silent(f"{self._url} doesn't answer") from None

    def _refuse_away(self) -> None:
        """Raises Silent."""
        if time.monotonic() < self._away_until:
            raise Silent(f"{self._url} failed a moment ago")

    def _failed(self, what: str, error: Exception) -> None:
        if isinstance(error, Silent):
            return
        self._away_until = time.monotonic() + AWAY
        said = f"{self._url} {what}: {' '.join(str(error).split())}"
        for secret in self._secrets:
            said = said.replace(secret, "***")
        say(said[:SHOWN])


def _is_unknown(ours: re.Pattern[str], known: Collection[str], path: str) -> bool:
    found = ours.fullmatch(path)
    return found is not None and found[1] not in known
