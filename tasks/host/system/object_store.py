"""Object stores that speak S3: how one is reached, and whether it keeps files."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from obstore.store import S3Store

CONNECT, ANSWER = "5 seconds", "60 seconds"
"""What a connection may take, and an answer, which has to bring a part of a large file."""
RETRIES, RETRY_FOR = 2, timedelta(seconds=20)


@dataclass(frozen=True)
class Account:
    """A bucket, s3://BUCKET/FOLDER, and what it asks for."""

    url: str
    endpoint: str | None
    """None: that of Amazon."""
    region: str
    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)


def connect(account: Account) -> S3Store:
    """Its folder of the bucket; nothing is asked yet."""
    from obstore.store import S3Store

    place = urlsplit(account.url)
    return S3Store(
        place.netloc,
        prefix=place.path.strip("/") or None,
        config={
            "access_key_id": account.access_key,
            "secret_access_key": account.secret_key,
            "region": account.region,
            **({"endpoint": account.endpoint} if account.endpoint else {}),
        },
        client_options={
            "connect_timeout": CONNECT,
            "timeout": ANSWER,
            "allow_http": (account.endpoint or "").startswith("http:"),
        },
        retry_config={"max_retries": RETRIES, "retry_timeout": RETRY_FOR},
    )


def refusal(account: Account) -> str | None:
    """Why files can't be kept there; None: they can."""
    import obstore
    from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

    key = f"probe-{secrets.token_hex(8)}"
    try:
        store = connect(account)
        obstore.put(store, key, b"")
        obstore.delete(store, key)
    except (PermissionDeniedError, UnauthenticatedError, FileNotFoundError):
        # Of a bucket that isn't there some say that nobody may write to it.
        return "it refuses these keys, or has no such bucket"
    except (BaseError, OSError, ValueError):
        return f"{account.endpoint or 'Amazon'} doesn't answer as it should"
    return None
