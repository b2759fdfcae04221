"""doit plan: print what doit would do and why, item by item; change nothing.

A plan is a run in which every step previews instead of acting. It fetches repositories and
resolves packages into a temporary folder, which later steps read before the real one.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from doit.runner import ERROR

from ..engine import write_guard
from ..engine.reporter import PlanReporter
from ..engine.run import Run
from ..engine.run_command import RunCommand


class Plan(RunCommand):
    doc_purpose = "say what doit would do and why; change nothing"
    doc_usage = "[TASK ...]"
    reporter = PlanReporter

    def execute(self, params: Any, args: list[str]) -> Any:
        self._refused: list[str] = []
        code = super().execute(params, args)
        for path in self._refused:
            print(f"a bug of doit plan: it was about to write {path}", file=sys.stderr)
        return (code or ERROR) if self._refused else code

    @contextmanager
    def prepared(self, run: Run) -> Iterator[Run]:
        with tempfile.TemporaryDirectory(prefix="comfy-machine-plan-") as folder:
            run = replace(run, overlay=Path(folder).resolve())
            with write_guard.only_overlay(run) as self._refused:
                yield run
