"""doit status: one table of what should run and what does."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any, TypeVar

from .. import gpus, nodes, server
from ..engine.outputs import FORMAT
from ..engine.run import Run
from ..generation import last_good
from ..host.comfyui import load_result
from ..host.comfyui.condition import Condition
from ..host.comfyui.job_apps import JobApp
from ..host.comfyui.machine_state import InstanceState, MachineState, WorkerState
from ..host.generations import drift
from ..host.pm2 import apps, pm2
from ..host.pm2.app_state import AppState
from ..host.system import run_journal
from ..host.system.gpu import Gpu
from ..host.system.program_files import PROGRAM
from ..host.system.units import duration, gib, size
from .shared import disk_report, health_report, run_report, table
from .shared.command import Call, MachineCommand, json_option
from .shared.health_report import Report

T = TypeVar("T")

GREEN, YELLOW, RED = 32, 33, 31
COLOURS = dict.fromkeys(("healthy", "running"), GREEN)
COLOURS |= dict.fromkeys(("degraded", "draining", "starting", "cordoned"), YELLOW)
"""Of each state on a terminal; red for the rest."""


class Status(MachineCommand):
    doc_purpose = "a table of instances and workers: health, memory, and why not"
    has_json = True
    cmd_options = (json_option(),)

    def perform(self, call: Call) -> int:
        run, instances = call.run, call.run.instances
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(gpus.assigned, run, instances)
            health = health_report.read(run, instances)
            cards = asked.result()
        found = health.found
        report = run_report.make_report(found.run, run_journal.read(run.layout))
        behind = last_good.refusal(run)
        away = nodes.left_out(run)
        results = load_result.read(run.layout.generation)
        drifted = drift.lines(run.layout.generation)
        failing = {name: str(each) for name, each in results.items() if each.failed}
        disk = disk_report.read_report(run)
        serving = any(app.name == apps.SERVER for app in pm2.running(run.layout))
        page = server.page(run) if serving else None
        if call.options["json"]:
            document = {
                "format": FORMAT,
                **_document(found, cards),
                "machine": _machine(health),
                **({"queue": asdict(health.queue)} if health.queue else {}),
                **({"workflows": health.workflows} if health.workflows else {}),
                "page": page,
                "run": report and report.document,
                "left_out": away,
                "not_imported": failing,
                "disk": asdict(disk) if disk else None,
                "drift": drifted,
                "cordoned": {str(gpu): asdict(each) for gpu, each in run.cordoned.items()},
            }
            self.document = document | ({"behind": asdict(behind)} if behind else {})
        else:
            _show(found, cards, run)
            _show_conditions(health)
            for name, each in health.workflows.items():
                print(_printable(f"workflow {name}: {_told_of_workflow(each)}"))
            if health.queue:
                print(health.queue)
            if page:
                print(f"page: {page}")
            if report and report.line:
                print(_printable(report.line))
            if behind:
                print(f"behind machine.yaml: {behind}")
            for name, reason in away.items():
                print(f"custom node {name} (optional) is left out: {reason}")
            for name, reason in failing.items():
                print(f"custom node {name} {reason}")
            if disk:
                print(disk)
            for line in drifted:
                print(_printable(line))
        return 0 if health.ready.is_healthy else 1


def _document(found: MachineState, cards: Mapping[int, Gpu]) -> dict[str, Any]:
    """For programs: only the rows of the instances have a key `pid`. Memory is in bytes."""
    return {
        "instances": {
            str(each.gpu): _instance(each) | _card(cards.get(each.gpu)) for each in found.instances
        },
        "workers": {each.worker: _worker(each) for each in found.workers},
        **({"jobs": {each.name: _job_app(each) for each in found.jobs}} if found.jobs else {}),
        "strangers": [{"name": app.name, "process": app.pid} for app in found.strangers],
        "watcher": {"process": found.watcher},
    }


def _machine(health: Report) -> dict[str, Any]:
    ready = health.ready
    return {"health": ready.health, "code": ready.reason, "reason": ready.message,
            "advice": ready.advice, "wanted": health.wanted,
            "conditions": [_condition(each) for each in health.conditions]}  # fmt: skip


def _condition(each: Condition) -> dict[str, Any]:
    return {"type": each.type, "status": each.status, "reason": each.reason,
            "message": each.message, "advice": each.advice, "since": each.since,
            "observed": each.observed}  # fmt: skip


def _instance(row: InstanceState) -> dict[str, Any]:
    ready, app = row.ready, row.state.app
    return {"instance": row.instance, "gpu": row.gpu, "port": row.port,
            "pid": app.pid if app else None, **_process(row.state), "queue": row.queue,
            "health": ready.health, "code": ready.reason, "reason": ready.message,
            "note": row.note}  # fmt: skip


def _worker(row: WorkerState) -> dict[str, Any]:
    app = row.state.app
    return {"worker": row.worker, "gpu": row.gpu, "process": app.pid if app else None,
            **_process(row.state), "running": app is not None,
            "reason": row.fault.message if row.fault else ""}  # fmt: skip


def _job_app(row: JobApp) -> dict[str, Any]:
    app = row.state.app
    return {"process": app.pid if app else None, **_process(row.state),
            "running": app is not None, "reason": row.fault}  # fmt: skip


def _process(state: AppState) -> dict[str, Any]:
    return {"memory": state.memory, "uptime": state.uptime, "restarts": state.restarts}


def _card(card: Gpu | None) -> dict[str, Any]:
    if card is None:
        return {}
    return {
        "gpu_name": card.name,
        "gpu_uuid": card.uuid,
        "gpu_memory_used": card.used,
        "gpu_memory_total": card.total,
    }


def _show(found: MachineState, cards: Mapping[int, Gpu], run: Run) -> None:
    rows = {each.gpu: _row(_instance(each), cards.get(each.gpu)) for each in found.instances}
    if not rows:
        print(health_report.why_none(run))
    for gpu, cordon in run.cordoned.items():
        dashes = ["–"] * 6
        why = f"{cordon}; {PROGRAM} uncordon {gpu}"
        rows[gpu] = [f"{apps.INSTANCES}{gpu}", str(gpu), *dashes, "cordoned", why]
    if rows:
        headings = "instance GPU memory port pid uptime restarts queue health".split()
        _print_table(headings, [rows[gpu] for gpu in sorted(rows)])
    if found.workers:
        print()
        _print_table(
            "worker GPU memory pid uptime restarts state".split(),
            [
                [
                    row["worker"],
                    str(row["gpu"]),
                    _text(row["memory"], size),
                    _text(row["process"]),
                    _text(row["uptime"], duration),
                    _text(row["restarts"]),
                    "running" if row["running"] else "down",
                    row["reason"],
                ]
                for row in map(_worker, found.workers)
            ],
        )
    if found.jobs:
        print()
        _print_table(
            "jobs memory pid uptime restarts state".split(),
            [
                [
                    each.name,
                    _text(row["memory"], size),
                    _text(row["process"]),
                    _text(row["uptime"], duration),
                    _text(row["restarts"]),
                    "running" if row["running"] else "down",
                    row["reason"],
                ]
                for each, row in ((each, _job_app(each)) for each in found.jobs)
            ],
        )
    for app in found.strangers:
        print(health_report.told_of_stranger(app))


def _row(row: Mapping[str, Any], card: Gpu | None) -> list[str]:
    """What the table shows of an instance."""
    return [
        row["instance"],
        _gpu(row["gpu"], card),
        _text(row["memory"], size),
        str(row["port"]),
        _text(row["pid"]),
        _text(row["uptime"], duration),
        _text(row["restarts"]),
        _text(row["queue"]),
        row["health"],
        "; ".join(filter(None, [row["reason"], row["note"]])),
    ]


def _show_conditions(health: Report) -> None:
    """What sums up, in the words of the health server, and what else isn't as wanted."""
    print(_printable(f"machine: {health.ready.told()}"))
    unlike = [each for each in health.conditions if each.type != "Available"]
    unlike = [each for each in unlike if each.reason != "Healthy"]
    reasons = [each.reason for each in unlike]
    if health.ready.reason in reasons:
        del unlike[reasons.index(health.ready.reason)]
    for each in unlike:
        print(_printable(f"  {each.told()}"))
    if not health.is_applied:
        print(health_report.CHANGED)


def _told_of_workflow(ready: Mapping[str, bool | None]) -> str:
    """On which instances what it needs is there; why not stands with them."""
    lacking = [name for name, ok in ready.items() if ok is False]
    unknown = [name for name, ok in ready.items() if ok is None]
    there = len(ready) - len(lacking) - len(unknown)
    parts = [f"ready on {there} of {len(ready)} instance{'' if len(ready) == 1 else 's'}"]
    parts += [f"not on {', '.join(lacking)}"] if lacking else []
    parts += [f"not known yet of {', '.join(unknown)}"] if unknown else []
    return "; ".join(parts)


def _gpu(number: int, card: Gpu | None) -> str:
    """The GPU as the table shows it."""
    if card is None:
        return str(number)
    return f"{number} {card.name} ({gib(card.used)} of {gib(card.total)})"


def _text(value: T | None, shown: Callable[[T], str] = str) -> str:
    return "–" if value is None else shown(value)


def _print_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """The last heading is of the last column but one, a state in colour; then comes why not."""
    coloured = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    why = ["why not"] if any(row[-1] for row in rows) else [""]
    cells = [[_printable(cell) for cell in row] for row in rows]
    for line in table.lines([*headings, *why], cells, width):
        state = line.state
        if coloured and state:
            state = f"\x1b[{COLOURS.get(state, RED)}m{state}\x1b[0m"
        print(f"{line.before}{state}{line.after}".rstrip())


def _printable(text: str) -> str:
    """A log's or a node's words may hold what would move the terminal's cursor."""
    return "".join(character if character.isprintable() else " " for character in text)
