"""What the watcher says in its log."""

from __future__ import annotations

import time
from contextlib import suppress


def say(text: str) -> None:
    # The reader, PM2's daemon, may have been killed.
    with suppress(OSError):
        print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}", flush=True)
