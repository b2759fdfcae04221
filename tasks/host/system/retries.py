"""How often what may pass is tried again, and after how long."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Retries:
    """How often to retry; each wait is twice the previous one."""

    attempts: int = 6
    """Tries in all."""
    backoff: float = 1.0
    """Seconds before the second try."""
    longest: float = 120.0
    """Seconds; when a server asks for a longer wait, it isn't tried again."""

    def wait(self, failed: int, requested: float | None = None) -> float:
        """Seconds before the next try after `failed` tries; `requested`: what the server asks for.

        It is at least `backoff`: with clocks that differ, a requested date may be in the past.
        """
        if requested is None:
            return float(self.backoff * 2 ** (failed - 1))
        return max(requested, self.backoff)

    def pause(self, failed: int, requested: float | None = None) -> bool:
        """Sleep before the next try; False, without a sleep: give up."""
        wait = self.wait(failed, requested)
        if failed >= self.attempts or wait > self.longest:
            return False
        time.sleep(wait)
        return True
