"""doit jobs: what waits, what runs, what became of the last ones."""

from __future__ import annotations

import shutil
import sys
from itertools import islice

from .shared import job_report, table
from .shared.command import Call, MachineCommand, json_option, option
from .shared.gateway_client import GatewayClient

HEADINGS = ("job", "age", "priority", "instance", "attempt", "state", "why")


class Jobs(MachineCommand):
    doc_purpose = "the jobs that wait, run and have ended; or all about some of them"
    doc_description = "A job is named by its id, or by the beginning of it."
    doc_usage = "[--failed] [-n N] [JOB ...]"
    takes_names = True
    has_json = True
    cmd_options = (
        option("failed", "only those that failed"),
        option("number", "how many; the newest come first", 20, "n"),
        json_option(),
    )

    def perform(self, call: Call) -> int:
        client = GatewayClient(call.run)
        if call.names:
            found = [client.job(client.named(name)) for name in call.names]
        else:
            statuses = "failed" if call.options["failed"] else ""
            found = [*islice(client.jobs(statuses), max(0, call.options["number"]))]
        if call.options["json"]:
            from .shared import documents

            self.document = documents.jobs(found)
            return 0
        if call.names:
            print("\n\n".join("\n".join(job_report.describe(each)) for each in found))
            return 0
        rows = [
            (
                each["id"],
                job_report.age(each),
                str(each["priority"] or 0),
                each["instance"] or "",
                str(each["attempt"]),
                job_report.state(each),
                job_report.why(each),
            )
            for each in found
        ]
        if not rows:
            print("no job" if not call.options["failed"] else "no job failed")
            return 0
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        for line in table.lines(HEADINGS, rows, width):
            print(f"{line.before}{line.state}{line.after}")
        return 0
