"""Survive a fault, and log it once, not each time that it comes again."""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Callable


class LogOnce:
    """Use one per thread or kind of work. Prints to stdout, which is a service's log."""

    def __init__(self) -> None:
        self._logged: deque[str] = deque(maxlen=8)

    def attempt(self, step: Callable[[], object]) -> None:
        """Call `step`; log the exception that it raises."""
        try:
            step()
        except Exception:
            self.log()

    def log(self) -> None:
        """Print the exception that is being handled, unless it equals one of the last eight."""
        text = traceback.format_exc()
        if text not in self._logged:
            self._logged.append(text)
            print(text, flush=True)
