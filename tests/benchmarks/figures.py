"""What benchmarks share: commands and their time, and figures, each with the bound to keep."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from tests import starter

_missed: list[str] = []


def at_most(what: str, value: float, bound: float, unit: str = "", more: str = "") -> None:
    _say(what, value, value <= bound, f"at most {bound:g}", unit, more)


def at_least(what: str, value: float, bound: float, unit: str = "", more: str = "") -> None:
    _say(what, value, value >= bound, f"at least {bound:g}", unit, more)


def miss(what: str) -> None:
    """Note that something went wrong which has no figure."""
    _missed.append(what)


def _say(what: str, value: float, kept: bool, bound: str, unit: str, more: str) -> None:
    if not kept:
        miss(what)
    mark = "✓" if kept else "✗"
    print(f"{mark} {what}: {value:.3g}{f' {unit}' if unit else ''} ({bound}){more}", flush=True)


def timed(work: Callable[[], object]) -> float:
    """Seconds that it took."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def run(
    command: Sequence[str | Path],
    cwd: Path,
    env: Mapping[str, str] | None = None,
    timeout: float | None = None,
) -> tuple[int, float, str]:
    """Exit code, seconds and output; after `timeout` seconds it is ended with all it started."""
    begin = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True,
    )  # fmt: skip
    try:
        output, _ = process.communicate(timeout=timeout)
    except BaseException as error:
        starter.end(process)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
    return process.returncode, time.perf_counter() - begin, output


def exit_on_signals() -> None:
    """Let signals end the program as an exception does, so that it leaves nothing running.

    This also undoes the "ignore" of SIGINT that a background job has, which instances would get.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _frame: sys.exit(128 + number))


def conclude() -> int:
    """Print what was missed; the exit code."""
    print(f"not reached: {', '.join(dict.fromkeys(_missed))}" if _missed else "all reached")
    return 1 if _missed else 0
