"""doit plan: what doit would do and why, item by item; it changes nothing.

It is a run in which every step foresees instead of acting: repositories are fetched and
packages resolved into a temporary folder, which later steps look into before the real one.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from doit import cmd_run

from ..engine import planning


class Plan(cmd_run.Run):  # type: ignore[misc]
    doc_purpose = "say what doit would do and why; change nothing"
    doc_usage = "[TASK ...]"

    def execute(self, params: Any, args: list[str]) -> Any:
        with tempfile.TemporaryDirectory(prefix="comfy-machine-plan-") as folder:
            planning.overlay = Path(folder).resolve()
            return super().execute(params, args)
