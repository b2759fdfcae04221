"""Progress of a node, sent to the client that queued the job."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from comfy import model_management

hooks: list[Callable[[float, float, Any], None]] = []
"""Called with value, total and preview; the server adds its own."""


class ProgressBar:
    """What a node tells its progress to. An interrupted job stops here."""

    def __init__(self, total: float, node_id: str | None = None) -> None:
        self.total = total
        self.current: float = 0

    def update_absolute(
        self, value: float, total: float | None = None, preview: Any = None
    ) -> None:
        self.total = self.total if total is None else total
        self.current = min(value, self.total)
        model_management.throw_exception_if_processing_interrupted()
        for hook in hooks:
            hook(self.current, self.total, preview)

    def update(self, value: float) -> None:
        self.update_absolute(self.current + value)
