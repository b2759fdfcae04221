"""doit rollback: return all instances to a good generation."""

from __future__ import annotations

import re
from collections.abc import Iterator

from doit.exceptions import InvalidCommand

from ..engine.run import Run
from ..generation import last_good
from ..host.system.program_files import PROGRAM
from ..instances import stage
from .shared import generation_report
from .shared.command import Call, LockingCommand


class Rollback(LockingCommand):
    doc_purpose = "go back to a good generation"
    doc_usage = "[N]"
    doc_description = (
        "machine.yaml and the lock stay as they are. "
        f"N is a number of {PROGRAM} generations; without it, the last good one before the current "
        "one, one further on each call."
    )
    takes_names = True

    @classmethod
    def words(cls, run: Run) -> Iterator[tuple[str, str]]:
        for entry in generation_report.read(run):
            if entry.selectable:
                yield str(entry.number), generation_report.summary(entry.changes)

    def work(self, call: Call) -> int:
        run = call.run
        way = last_good.way_back(run, _number(call.names))
        entry = generation_report.of(generation_report.read(run), run.layout.generations / way.name)
        title = generation_report.title(entry)
        print(f"going back to {title}:")
        for line in generation_report.describe(entry.changes) or ["the same versions"]:
            print(f"  {line}")
        last_good.roll_back(run, way)
        with run.working("rollback"):
            stage.start_last_good(run)
        summary = generation_report.summary(entry.changes)
        print(f"back on {title}: {summary}; until machine.yaml changes or {PROGRAM} force=1")
        return 0


def _number(words: list[str]) -> int | None:
    if not words:
        return None
    if len(words) > 1 or not re.fullmatch("[0-9]{1,9}", words[0]):
        raise InvalidCommand(
            f"rollback takes one number of {PROGRAM} generations, not {' '.join(words)}"
        )
    return int(words[0])
