"""doit rollback: return all instances to the last good generation."""

from __future__ import annotations

from ..generation import last_good
from ..instances import stage
from .shared.command import Call, LockingCommand


class Rollback(LockingCommand):
    doc_purpose = "go back to the last good generation; machine.yaml and the lock stay as they are"

    def work(self, call: Call) -> int:
        refusal = last_good.roll_back(call.run)
        stage.start_last_good(call.run)
        print(f"back on generation {refusal.back_on}, until machine.yaml changes or doit force=1")
        return 0
