"""doit cordon: take GPUs out of service; the other instances keep running."""

from __future__ import annotations

from doit.exceptions import InvalidCommand

from ..host.system import cordons
from ..instances import stage
from .shared.command import Call, LockingCommand, option


class Cordon(LockingCommand):
    doc_purpose = "take GPUs out of service, each drained first; machine.yaml stays as it is"
    doc_usage = "[--reason TEXT] GPU ..."
    takes_names = True
    cmd_options = (option("reason", "why, for status and health", ""),)

    def work(self, call: Call) -> int:
        run, layout = call.run, call.run.layout
        chosen = call.named()
        if not chosen:
            raise InvalidCommand("name a GPU: doit cordon 1")
        for instance in chosen:
            cordons.add(layout, instance.gpu, call.options["reason"], by_hand=True)
        stage.stop_cordoned(run.with_cordons(cordons.read(layout)), chosen)
        for instance in chosen:
            print(f"gpu{instance.gpu} is cordoned; doit uncordon {instance.gpu} ends that")
        return 0
