"""The machine's table of contents: `doit list` shows these stages in this order.

directories variables ports supervisor server      folders, ports, PM2, the page
     source nodes ─▶ lock ─▶ environment     code and packages
                                  │
                models    generation ─▶ validation
                   │                      │
up ◀─ build ◀─ workflows ◀────────────────┤
▲                                         │
│              links dotenv gpus limits ◀─┘  what instances need here
│                          │
└─ collection ◀─ workers ◀─ health ◀─ instances ◀─ pm2
                 │   ▲                  │
                 │   └─ jobs (if asked) ◀┤
                 watcher ◀──────────────┘
"""

from __future__ import annotations

from collections.abc import Iterator

from comfy_machine import (
    collection,
    directories,
    dotenv,
    gpus,
    health,
    job_queue,
    limits,
    nodes,
    ports,
    server,
    supervisor,
    validation,
    variables,
    watcher,
    workers,
    workflows,
)
from comfy_machine.engine.configuration import SETTINGS as DOIT_CONFIG  # noqa: F401  doit reads it
from comfy_machine.engine.configuration import current_run
from comfy_machine.engine.step import Task, group
from comfy_machine.environment import stage as environment
from comfy_machine.generation import scripts
from comfy_machine.generation import stage as generation
from comfy_machine.instances import stage as instances
from comfy_machine.links import stage as links
from comfy_machine.lock import stage as lock
from comfy_machine.models import stage as models
from comfy_machine.pm2 import stage as pm2
from comfy_machine.source import stage as source

RUN = current_run()


def task_machine() -> Iterator[Task]:
    yield from directories.tasks(RUN)
    yield from variables.tasks(RUN)
    yield from ports.tasks(RUN)
    yield from supervisor.tasks(RUN)
    yield from server.tasks(RUN)
    yield from source.tasks(RUN)
    yield from nodes.tasks(RUN)
    yield from lock.tasks(RUN)
    yield from environment.tasks(RUN)
    yield from generation.tasks(RUN)
    yield from scripts.tasks(RUN)
    yield from validation.tasks(RUN)
    yield from models.tasks(RUN)
    yield from workflows.tasks(RUN)
    yield group(
        "build",
        "All that an image holds: code, packages, nodes, models; starts nothing, needs no GPU",
        ["supervisor", "validation", "models", "workflows"],
    )
    yield from links.tasks(RUN)
    yield from dotenv.tasks(RUN)
    yield from gpus.tasks(RUN)
    yield from limits.tasks(RUN)
    yield from pm2.tasks(RUN)
    yield from instances.tasks(RUN)
    yield from job_queue.tasks(RUN)
    yield from health.tasks(RUN)
    yield from watcher.tasks(RUN)
    yield from workers.tasks(RUN)
    yield from collection.tasks(RUN)
    yield group(
        "up",
        "The machine is what machine.yaml says and every instance is healthy (the default)",
        ["server", "build", "collection"],
    )
