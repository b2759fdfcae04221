"""What the programs of jobs are told: the file that is their only argument."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Tls:
    """Files in PEM: who signed the server's certificate, and our own certificate with its key."""

    ca: str | None = None
    cert: str | None = None
    key: str | None = None


@dataclass(frozen=True)
class Bucket:
    """Where files lie that all machines need."""

    url: str
    """s3://BUCKET/PREFIX"""
    endpoint: str | None = None
    """None: that of Amazon."""
    region: str = "us-east-1"


@dataclass(frozen=True)
class Settings:
    """Times in seconds."""

    workspace: Path
    machine: str
    """The name of this machine among those on the same server."""
    url: str
    """Of the NATS server; several of a cluster are separated by commas."""
    token_file: str | None = None
    """Holds the token of our own server."""
    tls: Tls | None = None
    replicas: int = 1
    """On how many servers of a cluster each record lies."""
    attempts: int = 3
    """How often a job is started before it is dead."""
    max_queued: int = 10_000
    """How many jobs may wait."""
    keep: float = 7 * 86400.0
    """How long a job that ended is kept."""
    shared: bool = False
    """Whether other machines use the same server."""
    store: Bucket | None = None

    @classmethod
    def read(cls, file: Path) -> Settings:
        """Raises OSError and ValueError."""
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        tls, store = found.pop("tls", None), found.pop("store", None)
        known = {key: value for key, value in found.items() if key in cls.__annotations__}
        known["workspace"] = Path(known["workspace"])
        return cls(
            **known, tls=Tls(**tls) if tls else None, store=Bucket(**store) if store else None
        )
