"""Interrupting the running job."""

from __future__ import annotations

import threading

_interrupted = threading.Event()


class InterruptProcessingException(Exception):  # noqa: N818
    """The running job is to stop."""


def interrupt_current_processing(value: bool = True) -> None:
    """Ask the running job to stop, or take that back."""
    if value:
        _interrupted.set()
    else:
        _interrupted.clear()


def processing_interrupted() -> bool:
    return _interrupted.is_set()


def throw_exception_if_processing_interrupted() -> None:
    """Raise InterruptProcessingException if the job is to stop; once for each request."""
    if _interrupted.is_set():
        _interrupted.clear()
        raise InterruptProcessingException
