"""The machine's table of contents: `doit list` shows these stages in this order.

directories variables supervisor server      folders, PM2, the page
     source nodes ─▶ lock ─▶ environment     code and packages
                                  │
up ◀─ build ◀─ models    generation ─▶ validation
▲                                         │
│        links dotenv gpus ports limits ◀─┘  what instances need here
│                          │
└─ collection ◀─ workers ◀─ health ◀─ instances ◀─ pm2
                 watcher ◀──────────────┘
"""

from __future__ import annotations

from collections.abc import Iterator

from tasks import (
    collection,
    directories,
    dotenv,
    gpus,
    health,
    limits,
    nodes,
    ports,
    server,
    supervisor,
    validation,
    variables,
    watcher,
    workers,
)
from tasks.engine.configuration import SETTINGS as DOIT_CONFIG  # noqa: F401  doit reads it
from tasks.engine.configuration import current_run
from tasks.engine.step import Task, group
from tasks.environment import stage as environment
from tasks.generation import scripts
from tasks.generation import stage as generation
from tasks.instances import stage as instances
from tasks.links import stage as links
from tasks.lock import stage as lock
from tasks.models import stage as models
from tasks.pm2 import stage as pm2
from tasks.source import stage as source

RUN = current_run()


def task_machine() -> Iterator[Task]:
    yield from directories.tasks(RUN)
    yield from variables.tasks(RUN)
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
    yield group(
        "build",
        "All that an image holds: code, packages, nodes, models; starts nothing, needs no GPU",
        ["supervisor", "validation", "models"],
    )
    yield from links.tasks(RUN)
    yield from dotenv.tasks(RUN)
    yield from gpus.tasks(RUN)
    yield from ports.tasks(RUN)
    yield from limits.tasks(RUN)
    yield from pm2.tasks(RUN)
    yield from instances.tasks(RUN)
    yield from health.tasks(RUN)
    yield from watcher.tasks(RUN)
    yield from workers.tasks(RUN)
    yield from collection.tasks(RUN)
    yield group(
        "up",
        "The machine is what machine.yaml says and every instance is healthy (the default)",
        ["server", "build", "collection"],
    )
