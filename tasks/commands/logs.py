"""doit logs: the path and the end of each log of an instance, a worker or a task."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..engine.run import Run
from ..host.pm2 import apps
from ..host.system import process
from ..host.system.failure import Failure
from ..host.system.plain_text import without_colours
from ..pm2 import stage as configs
from ..spec import Instance
from ..spec.layout import Layout
from .shared.command import Call, MachineCommand, option

LINE_BYTES = 1024
"""Bytes of an average log line at most; decides how much of a log's end to read."""


class Logs(MachineCommand):
    doc_purpose = "the last lines of an instance's, a worker's or a task's log"
    doc_usage = "[NAME ...]"
    takes_names = True
    cmd_options = (
        option("lines", "how many lines of each log [default: %(default)s]", 50, "n"),
        option("follow", "keep printing new lines until interrupted", short="f"),
    )

    @classmethod
    def words(cls, run: Run) -> Iterator[tuple[str, str]]:
        yield from ((name, "") for name in _known(run.layout))

    def perform(self, call: Call) -> int:
        options, layout = call.options, call.run.layout
        if options["lines"] < 0:
            raise Failure("-n takes a number of lines, 0 or more")
        if call.names:
            logs = [_named(layout, name) for name in call.names]
        else:
            logs = _all(call.run, call.run.instances)
            if not options["follow"]:
                logs = [log for log in logs if log.is_file()]
        if not logs:
            raise Failure(f"no logs of instances or workers yet in {layout.logs}")
        if options["follow"]:
            _follow(logs, options["lines"])
        for log in logs:
            print(f"==> {log}")
            text = process.tail(log, 65536 + options["lines"] * LINE_BYTES)
            if not sys.stdout.isatty():
                text = without_colours(text)
            lines = text.splitlines()
            print("\n".join(lines[max(0, len(lines) - options["lines"]) :]))
        return 0


def _all(run: Run, instances: tuple[Instance, ...]) -> list[Path]:
    """The logs of the instances, each followed by those of its workers."""
    layout = run.layout
    return [
        layout.log(name)
        for instance in instances
        for name in (
            instance.name,
            *(
                configs.worker_name(worker, instance)
                for worker in configs.workers_of(run, instance)
            ),
        )
    ]


def _named(layout: Layout, name: str) -> Path:
    """The log of this name. Raises Failure, which names the existing ones."""
    log = layout.log(name)
    if not log.is_file():
        known = _known(layout)
        near = [each for each in known if name in each]
        raise Failure(f"no log {name!r}; known: {', '.join(near or known) or 'none'}")
    return log


def _known(layout: Layout) -> list[str]:
    """The logs that have something in them, and those of our own services."""
    logs = [path for path in layout.logs.glob("*.log") if path.stat().st_size]
    own = [log for name in apps.OURS if (log := layout.log(name)).is_file()]
    return sorted({path.stem for path in (*logs, *own)})


def _follow(logs: Sequence[Path], lines: int) -> None:
    """Become `tail -F`, which waits for missing files and follows new ones."""
    sys.stdout.flush()
    os.execvp("tail", ["tail", "-n", str(lines), "-F", "--", *map(str, logs)])
