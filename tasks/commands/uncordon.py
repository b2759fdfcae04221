"""doit uncordon: put cordoned GPUs back into service."""

from __future__ import annotations

from collections.abc import Iterator

from doit.exceptions import InvalidCommand

from ..engine.run import Run
from ..host.system import cordons
from ..host.system.program_files import PROGRAM
from .shared.command import Call, LockingCommand


class Uncordon(LockingCommand):
    doc_purpose = "put cordoned GPUs back into service"
    doc_description = f"The next {PROGRAM} starts their instances."
    doc_usage = "[GPU ...]"
    takes_names = True

    @classmethod
    def words(cls, run: Run) -> Iterator[tuple[str, str]]:
        yield from ((f"gpu{gpu}", str(each)) for gpu, each in run.cordoned.items())

    def work(self, call: Call) -> int:
        layout = call.run.layout
        cordoned = cordons.read(layout)
        known = {
            name: gpu for gpu in cordoned for name in (f"comfyui-gpu{gpu}", f"gpu{gpu}", str(gpu))
        }
        if unknown := [name for name in call.names if name not in known]:
            names = ", ".join(f"gpu{gpu}" for gpu in cordoned) or "none"
            raise InvalidCommand(f"{unknown[0]} isn't cordoned; cordoned: {names}")
        chosen = dict.fromkeys(known[name] for name in call.names) or cordoned
        for gpu in chosen:
            cordons.remove(layout, gpu)
            print(f"gpu{gpu} is in service again: {PROGRAM} starts its instance")
        if not chosen:
            print("no GPU is cordoned")
        return 0
