"""The current run, or a last run that did not succeed, in `doit status`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...host.system.run_journal import Journal, Task
from ...host.system.run_lock import Holder
from ...host.system.units import duration


@dataclass(frozen=True)
class Report:
    """The current or the last run, as programs get it; times in seconds."""

    line: str
    """For people; empty when it has ended: a condition says how."""
    document: dict[str, Any]


def make_report(run: Holder | None, journal: Journal | None) -> Report | None:
    """The report; None without a current run if the last one, if any, succeeded."""
    # Commands that take the lock, such as down, write no journal.
    if journal and journal.state == "running" and (run is None or run.pid == journal.pid):
        return _describe_running(journal, run.task if run else "")
    if run:
        line = f"a run is in progress: pid {run.pid}, {run.task or 'starting'}"
        return Report(line, {"process": run.pid, "task": run.task})
    if journal and journal.state == "failed":
        return _describe_failed(journal)
    if journal and journal.state == "interrupted":
        return _describe_interrupted(journal)
    return None


def _describe_running(journal: Journal, lock_task: str) -> Report:
    running = journal.of("running")
    task = " ".join(task.name for task in running) or lock_task
    left = journal.seconds_left
    words = ", ".join(map(_progress_text, running)) or lock_task or "starting"
    about = "" if left is None else f", about {duration(left)} left"
    return Report(
        f"a run is in progress: pid {journal.pid}, {words}{about}",
        {"process": journal.pid, "task": task, **_document(journal), "seconds_left": left},
    )


def _describe_failed(journal: Journal) -> Report:
    failed = journal.of("failed")
    task = " ".join(task.name for task in failed)
    reason = failed[0].reason.partition("\n")[0] if failed else ""
    return Report("", {"process": None, "task": task, **_document(journal), "reason": reason})


def _describe_interrupted(journal: Journal) -> Report:
    task = " ".join(task.name for task in journal.of("running"))
    return Report("", {"process": None, "task": task, **_document(journal)})


def _document(journal: Journal) -> dict[str, Any]:
    return {
        "command": journal.command,
        "state": journal.state,
        "percent": journal.percent,
        "done": journal.done,
        "total": len(journal.tasks),
    }


def _progress_text(task: Task) -> str:
    return task.name if task.percent is None else f"{task.name} ({task.percent:.0f} %)"
