"""doit logs: where the logs are, and the end of an instance's or a worker's."""

from __future__ import annotations

from typing import Any

from tasks.commands.base import MachineCommand
from tasks.host import process
from tasks.host.failure import Failure
from tasks.spec import Instance, Machine


class Logs(MachineCommand):
    doc_purpose = "the last lines of an instance's, a worker's or a task's log"
    doc_usage = "[NAME ...]"
    takes_names = True
    cmd_options = (
        {
            "name": "lines",
            "short": "n",
            "long": "lines",
            "type": int,
            "default": 50,
            "help": "how many lines of each log [default: %(default)s]",
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
        for name in arguments or [instance.name for instance in instances]:
            log = layout.log(name)
            if not log.is_file():
                known = sorted(
                    path.stem for path in layout.logs.glob("*.log") if path.stat().st_size
                )
                near = [each for each in known if name in each]
                raise Failure(
                    f"there is no log {name!r}; there are: {', '.join(near or known) or 'none'}"
                )
            print(f"==> {log}")
            print("\n".join(process.tail(log).splitlines()[-options["lines"] :]))
        return 0
