"""doit cancel: end jobs, whether they wait or run."""

from __future__ import annotations

from doit.exceptions import InvalidCommand

from ..host.system.program_files import PROGRAM
from .shared.command import Call, MachineCommand
from .shared.gateway_client import GatewayClient


class Cancel(MachineCommand):
    doc_purpose = "end jobs, whether they wait or run"
    doc_usage = "JOB ..."
    takes_names = True

    def perform(self, call: Call) -> int:
        if not call.names:
            raise InvalidCommand(f"name a job: {PROGRAM} cancel JOB; {PROGRAM} jobs lists them")
        client = GatewayClient(call.run)
        for name in call.names:
            job = client.cancel(client.named(name))
            print(f"{job['id']}  {job['status']}")
        return 0
