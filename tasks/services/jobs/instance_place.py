"""Which instance a worker serves."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """The instance of this worker."""

    name: str
    gpu: int
    url: str
    grace: float
    """Seconds that a job may take to end when the worker is asked to."""

    @classmethod
    def from_environment(cls) -> Place:
        """Raises KeyError and ValueError."""
        return cls(
            os.environ["JOBS_INSTANCE"],
            int(os.environ["JOBS_GPU"]),
            os.environ["COMFYUI_URL"].rstrip("/"),
            float(os.environ.get("WORKER_STOP_TIMEOUT", 600)),
        )
