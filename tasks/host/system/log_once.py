"""Goes on after a fault, and says it once, not at every look."""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Callable


class Steady:
    """Of one thread, or one kind of work."""

    def __init__(self) -> None:
        self._said: deque[str] = deque(maxlen=8)

    def attempt(self, step: Callable[[], object]) -> None:
        try:
            step()
        except Exception:
            self.say()

    def say(self) -> None:
        """Print the exception that is being handled, unless it is one of the last."""
        text = traceback.format_exc()
        if text not in self._said:
            self._said.append(text)
            print(text, flush=True)
