"""The exit codes of every command; docs/reference/exit-codes.md is this table."""

from __future__ import annotations

import signal
from enum import IntEnum


class ExitCode(IntEnum):
    """An exit code, and what it means."""

    meaning: str

    def __new__(cls, code: int, meaning: str) -> ExitCode:
        """Make a member of its number and its meaning."""
        member = int.__new__(cls, code)
        member._value_ = code
        member.meaning = meaning
        return member

    OK = (
        0,
        "Done; of `status` and `probe`: the machine serves, if degraded; of `plan`: a plan could "
        "be made.",
    )
    FAILED = (
        1,
        "It failed, and one line says why; of `status` and `probe`: it doesn't serve; of "
        "`verify`: something is damaged; of `audit`: something was found.",
    )
    REFUSED = (
        2,
        "A step of a run or of a plan failed, machine.lock is damaged, or another run is in "
        "progress.",
    )
    INVALID = (
        3,
        "The command line or machine.yaml can't be understood: an unknown option, task, "
        "instance or field. Nothing was done.",
    )
    INTERRUPTED = 128 + signal.SIGINT, "Stopped by SIGINT (Ctrl-C); the next run continues."
    READER_GONE = 128 + signal.SIGPIPE, "Nobody reads the output any more, as with `| head`."
    TERMINATED = (
        128 + signal.SIGTERM,
        "Stopped by SIGTERM, as by `kill`, systemd or Docker; the next run continues. Other "
        "signals: 128 and the signal's number.",
    )


def table() -> str:
    """The codes as a table of Markdown."""
    rows = [f"| {int(code)} | {code.meaning} |" for code in ExitCode]
    return "\n".join(["| code | meaning |", "|---|---|", *rows])
