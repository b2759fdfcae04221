"""Figures that a benchmark prints, each with the bound that it is to keep."""

from __future__ import annotations

import signal
import sys

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
