"""doit plan: print what doit would do and why, item by item; change nothing.

A plan is a run in which every step previews instead of acting. It fetches repositories and
resolves packages into a temporary folder, which later steps read before the real one.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from ..engine.reporter import PlanReporter
from ..engine.run import Run
from ..engine.run_command import RunCommand


class Plan(RunCommand):
    doc_purpose = "say what doit would do and why; change nothing"
    doc_usage = "[TASK ...]"
    reporter = PlanReporter

    @contextmanager
    def prepared(self, run: Run) -> Iterator[Run]:
        with tempfile.TemporaryDirectory(prefix="comfy-machine-plan-") as folder:
            yield replace(run, overlay=Path(folder).resolve())
