"""What the gateway is told beyond what all programs of jobs are."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..jobs.job_settings import Settings

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class GatewaySettings:
    """The whole settings file."""

    jobs: Settings
    port: int
    listen: str = LOOPBACK
    """Addresses, separated by commas."""

    @classmethod
    def read(cls, file: Path) -> GatewaySettings:
        """Raises OSError, ValueError and KeyError."""
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return cls(Settings.read(file), int(found["port"]), str(found.get("listen", LOOPBACK)))
