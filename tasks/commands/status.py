"""doit status: one table of what should run and what does."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

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
        rows = [_row(machine, instance) for instance in instances]
        if options["json"]:
            print(json.dumps({"instances": {str(row.gpu): asdict(row) for row in rows}}))
        else:
            _print_table(rows)
        return 0 if all(row.health == "healthy" for row in rows) else 1


def _row(machine: Machine, instance: Instance) -> Row:
    layout = Layout(machine.workspace)
    running = {app.name: app for app in apps.running(layout.workspace, pm2.daemon(layout))}
    app = running.get(instance.name)
    if app is None:
        log = process.tail(layout.logs / f"{instance.name}.log")
        reason = f"last words: {process.last_line(log)}" if log else "not started"
        return Row(instance.name, instance.gpu, instance.port, None, "down", None, reason)
    health = comfyui.probe(instance.listen, instance.port)
    state = "healthy" if health.healthy else "unhealthy"
    return Row(
        instance.name, instance.gpu, instance.port, app.pid, state, health.queue, health.reason
    )


def _print_table(rows: list[Row]) -> None:
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=box.SIMPLE)
    for heading in ("instance", "GPU", "port", "pid", "health", "queue", "why not"):
        table.add_column(heading)
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
    console = Console()
    if rows:
        console.print(table)
    else:
        console.print("no instances: machine.yaml and the environment ask for none here")
