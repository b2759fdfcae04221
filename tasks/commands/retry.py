"""doit retry: let jobs that failed wait again."""

from __future__ import annotations

from doit.exceptions import InvalidCommand

from ..host.system.program_files import PROGRAM
from .shared.command import Call, MachineCommand
from .shared.gateway_client import GatewayClient


class Retry(MachineCommand):
    doc_purpose = "let jobs that failed wait again, as if they were new"
    doc_usage = "JOB ..."
    takes_names = True

    def perform(self, call: Call) -> int:
        if not call.names:
            raise InvalidCommand(
                f"name a job: {PROGRAM} retry JOB; {PROGRAM} jobs --failed lists them"
            )
        client = GatewayClient(call.run)
        for name in call.names:
            job = client.retry(client.named(name))
            print(f"{job['id']}  {job['status']}")
        return 0
