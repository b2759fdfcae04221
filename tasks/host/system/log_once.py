"""Survive a fault, and log it once, not each time that it comes again."""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Callable


class LogOnce:
    """For one thread, or one kind of work. It prints; the service's output is its log."""

    def __init__(self) -> None:
        self._logged: deque[str] = deque(maxlen=8)

    def attempt(self, step: Callable[[], object]) -> None:
        """Call `step`; log the exception that it raises."""
        try:
            step()
        except Exception:
            self.log()

    def log(self) -> None:
        """Print the exception that is being handled, unless it is one of the last eight."""
        text = traceback.format_exc()
        if text not in self._logged:
            self._logged.append(text)
            print(text, flush=True)
