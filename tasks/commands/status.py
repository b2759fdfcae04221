"""doit status: one table of what should run and what does."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from tasks import nodes, validation, watcher
from tasks.commands.base import MachineCommand
from tasks.host import apps, comfyui, pm2, process
from tasks.spec import Instance, Machine
from tasks.spec.layout import Layout


@dataclass(frozen=True)
class Row:
    """One instance as it is now."""

    instance: str
    gpu: int
    port: int
    pid: int | None
    health: str
    queue: int | None
    reason: str


class Status(MachineCommand):
    doc_purpose = "a table of the instances: GPU, port, pid, health; works while a run is on"
    cmd_options = (
        {
            "name": "json",
            "long": "json",
            "type": bool,
            "default": False,
            "help": "print JSON for programs",
        },
    )

    def perform(
        self,
        machine: Machine,
        instances: tuple[Instance, ...],
        options: dict[str, Any],
        arguments: list[str],
    ) -> int:
        layout = machine.layout
        running = apps.running(layout.workspace, pm2.daemon(layout))
        rows = [_row(layout, instance, running) for instance in instances]
        names = (
            {instance.name for instance in instances}
            | {watcher.NAME}
            | {
                f"{worker.name}-gpu{instance.gpu}"
                for worker in machine.workers
                for instance in instances
            }
        )
        strangers = [app for app in running if app.name not in names]
        away = nodes.left_out(machine)
        results = validation.read(machine.layout.current.resolve())
        failing = {name: each.reason for name, each in results.items() if not each.imported}
        if options["json"]:
            shown = {str(row.gpu): asdict(row) for row in rows}
            print(json.dumps({"instances": shown, "left_out": away, "not_imported": failing}))
        else:
            _print_table(rows)
            for app in strangers:
                print(f"{app.name} (pid {app.pid}) runs too, and machine.yaml names it no more")
            if not rows:
                print(_why_none(machine))
            for name, reason in away.items():
                print(f"custom node {name} (optional) is left out: {reason}")
            for name, reason in failing.items():
                print(f"custom node {name} doesn't import: {reason}")
        well = all(row.health == "healthy" for row in rows) and not strangers
        return 0 if well and (rows or not machine.enabled) else 1


def _why_none(machine: Machine) -> str:
    if not machine.enabled:
        return "no instances: ENABLE_COMFYUI is false"
    return "no instances: instances.gpus is auto, and there is no GPU here"


def _row(layout: Layout, instance: Instance, running: list[apps.App]) -> Row:
    app = {app.name: app for app in running}.get(instance.name)
    if app is None:
        log = process.tail(layout.logs / f"{instance.name}.log")
        reason = f"last words: {process.last_line(log)}" if log else "not started"
        return Row(instance.name, instance.gpu, instance.port, None, "down", None, reason)
    health = comfyui.probe(instance.listen, instance.port)
    state = "healthy" if health.healthy else "unhealthy"
    reason = watcher.said(layout, instance.gpu, app) or health.reason
    return Row(instance.name, instance.gpu, instance.port, app.pid, state, health.queue, reason)


def _print_table(rows: list[Row]) -> None:
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=box.SIMPLE)
    for heading in ("instance", "GPU", "port", "pid", "health", "queue", "why not"):
        table.add_column(heading, no_wrap=heading != "why not")
    for row in rows:
        colour = "green" if row.health == "healthy" else "red"
        table.add_row(
            row.instance,
            str(row.gpu),
            str(row.port),
            str(row.pid or "–"),
            f"[{colour}]{row.health}[/]",
            "–" if row.queue is None else str(row.queue),
            escape(row.reason),
        )
    if rows:
        Console().print(table)
