"""The API keys that a client sends with a job, for nodes that ask a partner's service.

They are kept in the server's memory until the job ends, and never on a disk: ComfyUI does the same.
A server that restarts has lost them.
"""

from __future__ import annotations

import json
from contextlib import suppress

from nats.errors import Error
from nats.js import JetStreamContext
from nats.js.api import KeyValueConfig, StorageType
from nats.js.errors import BucketNotFoundError, KeyNotFoundError, NotFoundError
from nats.js.kv import KeyValue

NAMES = ("api_key_comfy_org", "auth_token_comfy_org")
"""In ComfyUI's extra_data. Source: execution.py, SENSITIVE_EXTRA_DATA_KEYS."""
LONGEST = 8192
"""Characters of a key."""
BUCKET = KeyValueConfig(
    "comfy_partner_keys", storage=StorageType.MEMORY, ttl=7 * 86400.0, max_value_size=4 * LONGEST,
    max_bytes=64 << 20,
)  # fmt: skip
Keys = dict[str, str]


class PartnerKeys:
    """The keys of all jobs on one server or cluster, each under a name that only its record has."""

    def __init__(self, stream: JetStreamContext, replicas: int) -> None:
        self._stream, self._config = stream, BUCKET.evolve(replicas=replicas)

    async def put(self, name: str, keys: Keys) -> None:
        """Raises nats.errors.Error."""
        try:
            bucket = await self._bucket()
        except BucketNotFoundError:
            # The first time, and after each restart of the server.
            bucket = await self._stream.create_key_value(self._config)
        await bucket.put(name, json.dumps(keys).encode())

    async def get(self, name: str) -> Keys | None:
        """None: they are lost. Raises nats.errors.Error."""
        try:
            found: Keys = json.loads((await (await self._bucket()).get(name)).value or b"{}")
        except (BucketNotFoundError, KeyNotFoundError, NotFoundError):
            return None
        return found

    async def drop(self, name: str) -> None:
        """Forget them; the bucket does so after a week where nobody can ask for it."""
        with suppress(Error):
            await (await self._bucket()).purge(name)

    async def _bucket(self) -> KeyValue:
        return await self._stream.key_value(self._config.bucket)
