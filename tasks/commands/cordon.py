"""doit cordon: take GPUs out of service; the other instances keep running."""

from __future__ import annotations

from collections.abc import Iterator

from doit.exceptions import InvalidCommand

from ..engine.run import Run
from ..host.system import cordons
from ..host.system.program_files import PROGRAM
from ..instances import stage
from .shared.command import Call, LockingCommand, option


class Cordon(LockingCommand):
    doc_purpose = "take GPUs out of service, each drained first"
    doc_description = "machine.yaml stays as it is, and the other instances keep running."
    doc_usage = "[--reason TEXT] GPU ..."
    takes_names = True
    cmd_options = (option("reason", "why, for status and health", ""),)

    @classmethod
    def words(cls, run: Run) -> Iterator[tuple[str, str]]:
        yield from ((f"gpu{each.gpu}", f"the GPU of {each.name}") for each in run.instances)

    def work(self, call: Call) -> int:
        run, layout = call.run, call.run.layout
        chosen = call.named()
        if not chosen:
            raise InvalidCommand(f"name a GPU: {PROGRAM} cordon 1")
        for instance in chosen:
            cordons.add(layout, instance.gpu, call.options["reason"], by_hand=True)
        with run.working("cordon"):
            stage.stop_cordoned(run.with_cordons(cordons.read(layout)), chosen)
        for instance in chosen:
            print(
                f"gpu{instance.gpu} is cordoned, {instance.name} and its workers are stopped; "
                f"{PROGRAM} uncordon {instance.gpu} ends that"
            )
        return 0
