"""doit generations: what can be gone back to, and what that would change."""

from __future__ import annotations

from ..host.system.program_files import PROGRAM
from ..host.system.units import size
from .shared import generation_report
from .shared.command import Call, MachineCommand, json_option
from .shared.generation_report import Entry


class Generations(MachineCommand):
    doc_purpose = "what rollback can go back to, with versions and sizes"
    doc_description = (
        f"The number is what {PROGRAM} rollback takes, and stays the same. A size is what removing "
        "that generation would free: files that no other one shares. + and - say what going there "
        "adds and removes."
    )
    has_json = True
    cmd_options = (json_option(),)

    def perform(self, call: Call) -> int:
        entries = generation_report.read(call.run)
        if call.options["json"]:
            from .shared import documents

            self.document = documents.generations(entries)
            return 0
        for entry in entries:
            number = "–" if entry.number is None else str(entry.number)
            print(f"{number:>3}  {'  '.join(_words(entry))}")
            for line in () if entry.current else generation_report.describe(entry.changes):
                print(f"       {line}")
        if not entries:
            print(f"no generation yet: run {PROGRAM}")
        elif not any(each.selectable for each in entries):
            print("nothing to go back to yet")
        else:
            print(f"go back with {PROGRAM} rollback N; sizes are of files that no other one shares")
        return 0


def _words(entry: Entry) -> list[str]:
    comfyui = entry.contents.comfyui
    short = (comfyui.commit or "")[:9]
    commit = f" ({short})" if short and short != str(comfyui) else ""
    at = f"good since {generation_report.when(entry.good_at)}" if entry.good_at else ""
    if entry.last_good and at:
        at = at.replace("good", "last good", 1)
    refused = entry.refusal
    if refused:
        how = "left by hand" if refused.by_hand else f"refused: {refused.reason}"
        at = f"{how} ({generation_report.when(refused.at)})"
    uses = [
        "current" if entry.current else "",
        f"runs: {', '.join(entry.running)}" if entry.running else "",
        at or "not good yet",
        "" if entry.current or entry.selectable or refused else "can't be gone back to",
    ]
    room = "not measured yet" if entry.size is None else size(entry.size)
    return [f"ComfyUI {comfyui}{commit}", "; ".join(filter(None, uses)), room]
