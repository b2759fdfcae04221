"""doit audit: what the registry and advisories say of the custom nodes and packages."""

from __future__ import annotations

from doit.exceptions import InvalidCommand

from ..engine.exit_codes import ExitCode
from .shared.command import Call, MachineCommand, json_option, option


class Audit(MachineCommand):
    doc_purpose = "check custom nodes and packages for what was banned, flagged or has advisories"
    doc_usage = ""
    doc_description = (
        "Custom nodes are looked up in the registry, those of git by their repository and the "
        "version in their pyproject.toml; all of them and the Python packages of machine.lock in "
        "registry.advisories of machine.yaml. What can't be judged is named, and is no failure. "
        "Exit code 1: something was found."
    )
    has_json = True
    cmd_options = (
        json_option(),
        option("ignore", "ids of advisories to leave out, separated by commas", ""),
    )

    def perform(self, call: Call) -> int:
        from .shared import audit_report, node_audit

        run = call.run
        if run.machine.lock_damage:
            raise InvalidCommand(run.machine.lock_damage)
        ignored = {each.strip() for each in call.options["ignore"].split(",") if each.strip()}
        with run.working("audit", "asks the registry and sources of advisories"):
            found = node_audit.audit(run, ignored)
        if call.options["json"]:
            from .shared import documents

            self.document = documents.audit(found)
        for line in () if call.options["json"] else audit_report.lines(found):
            print(line)
        return ExitCode.FAILED if found.found else ExitCode.OK
