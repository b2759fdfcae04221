"""The machine's table of contents: `doit list` shows these stages in this order."""

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
from tasks.engine.configuration import doit_config, load_machine
from tasks.engine.step import Task
from tasks.environment import stage as environment
from tasks.generation import scripts
from tasks.generation import stage as generation
from tasks.instances import stage as instances
from tasks.links import stage as links
from tasks.lock import stage as lock
from tasks.models import stage as models
from tasks.pm2 import stage as pm2
from tasks.source import stage as source

MACHINE, INSTANCES = load_machine()
DOIT_CONFIG = doit_config(MACHINE)


def task_directories() -> Iterator[Task]:
    return directories.tasks(MACHINE, INSTANCES)


def task_variables() -> Iterator[Task]:
    return variables.tasks(MACHINE, INSTANCES)


def task_supervisor() -> Iterator[Task]:
    return supervisor.tasks(MACHINE)


def task_server() -> Iterator[Task]:
    return server.tasks(MACHINE, INSTANCES)


def task_source() -> Iterator[Task]:
    return source.tasks(MACHINE)


def task_nodes() -> Iterator[Task]:
    return nodes.tasks(MACHINE)


def task_lock() -> Iterator[Task]:
    return lock.tasks(MACHINE)


def task_environment() -> Iterator[Task]:
    return environment.tasks(MACHINE)


def task_generation() -> Iterator[Task]:
    yield from generation.tasks(MACHINE)
    yield from scripts.tasks(MACHINE)


def task_validation() -> Iterator[Task]:
    return validation.tasks(MACHINE)


def task_models() -> Iterator[Task]:
    return models.tasks(MACHINE)


def task_build() -> Task:
    """All that an image holds: code, packages, nodes, models; starts nothing, needs no GPU"""
    return {"actions": None, "task_dep": ["supervisor", "validation", "models"]}


def task_links() -> Iterator[Task]:
    return links.tasks(MACHINE)


def task_dotenv() -> Iterator[Task]:
    return dotenv.tasks(MACHINE)


def task_gpus() -> Iterator[Task]:
    return gpus.tasks(MACHINE, INSTANCES)


def task_ports() -> Iterator[Task]:
    return ports.tasks(MACHINE, INSTANCES)


def task_limits() -> Iterator[Task]:
    return limits.tasks(MACHINE, INSTANCES)


def task_pm2() -> Iterator[Task]:
    return pm2.tasks(MACHINE, INSTANCES)


def task_instances() -> Iterator[Task]:
    return instances.tasks(MACHINE, INSTANCES)


def task_health() -> Iterator[Task]:
    return health.tasks(MACHINE, INSTANCES)


def task_watcher() -> Iterator[Task]:
    return watcher.tasks(MACHINE, INSTANCES)


def task_workers() -> Iterator[Task]:
    return workers.tasks(MACHINE, INSTANCES)


def task_collection() -> Iterator[Task]:
    return collection.tasks(MACHINE, INSTANCES)


def task_up() -> Task:
    """The machine is what machine.yaml says and every instance is healthy (the default)"""
    return {"actions": None, "task_dep": ["server", "build", "collection"]}
