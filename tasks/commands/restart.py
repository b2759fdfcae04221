"""doit restart: restart instances one by one, each drained first."""

from __future__ import annotations

from ..generation import last_good
from ..host.system.failure import Failure
from ..instances import roll
from .shared.command import Call, LockingCommand


class Restart(LockingCommand):
    doc_purpose = "restart instances one by one; applies no changes of machine.yaml"
    doc_usage = "[INSTANCE ...]"
    takes_names = True

    def work(self, call: Call) -> int:
        run, instances = call.run, call.run.instances
        known = last_good.wanted_fingerprints(run, instances)
        chosen = call.named() or [instance for instance in instances if instance.name in known]
        if not chosen:
            raise Failure("nothing to restart yet: run doit")
        if missing := [each.name for each in chosen if each.name not in known]:
            raise Failure(f"not started yet: {', '.join(missing)}: run doit")
        roll.roll_and_record(run, chosen)
        for instance in chosen:
            print(f"{instance.name} is healthy")
        return 0
