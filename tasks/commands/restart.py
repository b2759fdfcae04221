"""doit restart: restart instances one by one, each drained first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ..engine.run import Run
from ..generation import last_good
from ..host.system.failure import Failure
from ..host.system.program_files import PROGRAM
from ..instances import roll
from ..pm2 import stage as configs
from .shared.command import Call, LockingCommand, instance_words


class Restart(LockingCommand):
    doc_purpose = "restart instances, one by one and drained first, or workers"
    doc_description = "Applies no changes of machine.yaml."
    doc_usage = "[INSTANCE|GPU|WORKER ...]"
    takes_names = True

    @classmethod
    def words(cls, run: Run) -> Iterator[tuple[str, str]]:
        yield from instance_words(run)
        yield from ((name, "a worker") for name in _workers(run))

    def work(self, call: Call) -> int:
        run, instances = call.run, call.run.instances
        known = last_good.wanted_fingerprints(run, instances)
        apps = _workers(run)
        workers = list(dict.fromkeys(app for name in call.names for app in apps.get(name, ())))
        chosen = replace(call, names=[name for name in call.names if name not in apps]).named()
        if not call.names:
            chosen = [instance for instance in instances if instance.name in known]
            if not chosen:
                raise Failure(f"nothing to restart yet: run {PROGRAM}")
        names = [*(each.name for each in chosen), *workers]
        if missing := [name for name in names if name not in known]:
            raise Failure(f"not started yet: {', '.join(missing)}: run {PROGRAM}")
        if chosen:
            with run.working("restart"):
                roll.roll_and_record(run, chosen)
        for instance in chosen:
            print(f"{instance.name} is healthy")
        if workers:
            with run.working("restart", f"PM2 restarts {', '.join(workers)}"):
                roll.restart_workers(run, workers)
            print(f"restarted: {', '.join(workers)}")
        return 0


def _workers(run: Run) -> dict[str, list[str]]:
    """What a person may call a worker → its apps: worker-gpu1, or worker for all of that name."""
    found: dict[str, list[str]] = {}
    for instance in run.instances:
        for worker in configs.workers_of(run, instance):
            name = configs.worker_name(worker, instance)
            found.setdefault(worker.name, []).append(name)
            found[name] = [name]
    return found
