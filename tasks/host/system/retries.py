"""How often what may pass is tried again, and after how long."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Retries:
    """The waits double from one to the next."""

    attempts: int = 6
    """Tries in all."""
    backoff: float = 1.0
    """Seconds before the second try."""
    longest: float = 120.0
    """Seconds; a server that asks for a longer wait is not waited for."""

    def wait(self, failed: int, asked: float | None = None) -> float:
        """Seconds before another try after so many failed; `asked`: what the server wants.

        A date may lie behind us, where clocks differ: that must not use up all tries at once.
        """
        return self.backoff * 2 ** (failed - 1) if asked is None else max(asked, self.backoff)

    def pause(self, failed: int, asked: float | None = None) -> bool:
        """Sleep before another try; False, at once, where there is to be none."""
        wait = self.wait(failed, asked)
        if failed >= self.attempts or wait > self.longest:
            return False
        time.sleep(wait)
        return True
