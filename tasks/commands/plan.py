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
from typing import Any, TextIO

from ..engine import write_guard
from ..engine.exit_codes import ExitCode
from ..engine.reporter import PlanReporter
from ..engine.run import Run
from ..engine.run_command import RunCommand
from ..host.system.program_files import PROGRAM
from .shared.command import json_option


class Plan(RunCommand):
    doc_purpose = f"say what {PROGRAM} would do and why; change nothing"
    doc_usage = "[TASK ...]"
    has_json = True
    cmd_options = (*RunCommand.cmd_options, json_option())

    def execute(self, params: Any, args: list[str]) -> Any:
        self._refused: list[str] = []
        self._reporter: PlanReporter | None = None
        self._silent = params["json"]
        code = super().execute(params, args)
        if self._silent and self._reporter and self.document is None:
            from .shared import documents

            self.document = documents.plan(self._reporter)
        for path in self._refused:
            print(f"a bug of {PROGRAM} plan: it was about to write {path}", file=sys.stderr)
        return (code or ExitCode.REFUSED) if self._refused else code

    def make_reporter(self, out: TextIO, run: Run) -> PlanReporter:
        self._reporter = PlanReporter(out, run, silent=self._silent)
        return self._reporter

    @contextmanager
    def prepared(self, run: Run) -> Iterator[Run]:
        with tempfile.TemporaryDirectory(prefix="comfy-machine-plan-") as folder:
            run = replace(run, overlay=Path(folder).resolve())
            with write_guard.only_overlay(run) as self._refused:
                yield run
