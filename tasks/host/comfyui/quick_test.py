"""The proof: ComfyUI's own `--quick-test-for-ci` loads everything and ends before it serves.

The process reports the result of each custom node (`load_report`). A node that ends the process or
never finishes leaves an unfinished entry. It is only suspect, since a thread of an earlier node may
be the cause; a node is blamed only if ComfyUI starts without it.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..system import process
from ..system.failure import Failure
from ..system.program_files import SERVICES
from ..system.progress import OnProgress, ignore_progress
from . import load_report, load_result
from .load_report import Catalogue, Report
from .load_result import Outcome, Result

END_TIMEOUT_WITH_THREADS, END_TIMEOUT = 10.0, 60.0
"""Seconds to end after everything is loaded: with custom nodes' threads that keep the process from
ending, and without, since ComfyUI still opens its database, perhaps on a slow disk."""
MOST_HANGS = 3
"""Custom nodes that may each use up the time-out before this gives up."""


@dataclass(frozen=True)
class Attempt:
    """How one start ended."""

    code: int | None
    """Its exit code; negative: a signal; None: it was ended, out of time or after it had loaded."""
    output: str
    report: Report | None
    timed_out: bool = False

    @property
    def suspect(self) -> str | None:
        """The custom node that was being loaded when it ended."""
        return self.report.unfinished if self.report else None

    @property
    def ok(self) -> bool:
        """Whether it loaded everything. Without a report only the exit code can tell."""
        report = self.report
        if report and report.attached and report.complete:
            return self.code in (0, None)
        would_report = report is not None and report.whole
        return self.code == 0 and not self.suspect and not would_report


@dataclass(frozen=True)
class Proved:
    """What a proof found."""

    results: dict[str, Result]
    """By name in custom_nodes."""
    catalogue: Catalogue | None
    """None: this ComfyUI's process doesn't tell."""


@dataclass(frozen=True)
class Proof:
    """The validation of one generation."""

    python: Path
    comfyui: Path
    scratch: Path
    env: Mapping[str, str]
    args: Sequence[str]
    log: Path
    timeout: float
    """Seconds for everything."""
    secrets: Collection[str] = ()
    """Values that the log must not show."""
    changes: Path | None = None
    """Where the process records what it changes."""
    database: bool = True
    """Whether ComfyUI knows --database-url."""
    later: Collection[str] = ()
    """Variables without a value here, and ".env": the report says which nodes ask for them."""
    describe: bool = False
    """Whether to ask for all node classes, with the inputs that are chosen from a list."""
    declared: Collection[str] = ()
    """Custom nodes that ComfyUI must load."""
    on_progress: OnProgress = ignore_progress
    """Called every second with what is being loaded."""
    excluded: Mapping[str, Result] = field(default_factory=dict)
    """Custom nodes that are not tried again → their known results."""

    def run(self) -> Proved:
        """Raises Failure if ComfyUI itself can't start."""
        names = {path.name for path in (self.comfyui / "custom_nodes").iterdir()}
        excluded = {name: result for name, result in self.excluded.items() if name in names}
        attempt, hangs = self._start(names, excluded), 0
        while not attempt.ok:
            name = attempt.suspect
            hangs += attempt.timed_out
            if name is None or hangs > MOST_HANGS:
                raise self._failure(attempt)
            result = self._result_of_suspect(attempt)
            without = self._start(names, {*excluded, name})
            ends_alone = (
                not (without.ok or attempt.timed_out) and not self._start(names, names - {name}).ok
            )
            if not (without.ok or attempt.timed_out or ends_alone):
                name, without = self._earlier(names, excluded, attempt)
                result = Result(Outcome.ENDED, code=attempt.code)
            excluded[name] = result
            attempt = without
        self._log_threads(attempt)
        report = attempt.report or Report()
        results = load_result.of_report(report, self.declared) | excluded
        return Proved(results, report.catalogue)

    def _result_of_suspect(self, attempt: Attempt) -> Result:
        assert attempt.report is not None
        asked = attempt.report.packs[str(attempt.suspect)].asked
        if attempt.timed_out:
            return Result(Outcome.HUNG, self.timeout, asked=asked)
        return Result(Outcome.ENDED, code=attempt.code, asked=asked)

    def _earlier(
        self, names: set[str], excluded: Collection[str], attempt: Attempt
    ) -> tuple[str, Attempt]:
        """The earlier node without which ComfyUI starts, found by halving; and that start.

        Raises Failure when no single node is the cause.
        """
        assert attempt.report is not None
        loaded = list(attempt.report.packs)
        suspects = loaded[: loaded.index(str(attempt.suspect))]
        while len(suspects) > 1:
            half = suspects[: len(suspects) // 2]
            starts = self._start(names, {*excluded, *half}).ok
            suspects = half if starts else suspects[len(half) :]
        if suspects and (without := self._start(names, {*excluded, *suspects})).ok:
            return suspects[0], without
        raise self._failure(attempt)

    def _failure(self, attempt: Attempt) -> Failure:
        at = f" while custom node {attempt.suspect} is loaded" if attempt.suspect else ""
        if attempt.timed_out:
            return Failure(
                f"ComfyUI didn't finish loading in {self.timeout:g} s{at}: see the log, or give it "
                "more time (comfyui.proof_timeout)",
                self.log,
            )
        last = process.last_line(attempt.output)
        return Failure(f"ComfyUI doesn't start (code {attempt.code}){at}: {last}", self.log)

    def _log_threads(self, attempt: Attempt) -> None:
        """Log which custom nodes kept the process from ending."""
        if attempt.code is None and attempt.report:
            names = [name for name, pack in attempt.report.packs.items() if pack.threads]
            who = f"custom node {', '.join(names)}" if names else "something that was loaded"
            with self.log.open("a") as log:
                print(f"{who} kept ComfyUI from ending, so it was ended", file=log)

    def _start(self, names: set[str], excluded: Collection[str]) -> Attempt:
        """Run once without `excluded`, in scratch folders, since the test deletes temp."""
        self.scratch.mkdir(parents=True, exist_ok=True)
        home = Path(tempfile.mkdtemp(dir=self.scratch))
        reports = home / "report"
        folders = []
        for name in ("user", "input", "output", "temp"):
            (home / name).mkdir()
            folders += [f"--{name}-directory", home / name]
        argv = [sys.executable, "-I", SERVICES / "reaper.py",
                sys.executable, "-I", SERVICES / "shim.py", "--report", reports,
                *(["--changes", self.changes] if self.changes else []), "--",
                self.python, "main.py", "--quick-test-for-ci", *self.args, *folders,
                *(["--database-url", f"sqlite:///{home / 'comfyui.db'}"] if self.database else []),
                *_selection(names, excluded)]  # fmt: skip
        env = {**self.env, "COMFY_MACHINE_PROOF": ",".join(self.later) or "-"}
        if self.describe:
            env["COMFY_MACHINE_DESCRIBE"] = "1"
        settled = _Settled(reports, self.on_progress)
        code, timed_out = None, False
        try:
            output = process.run(
                argv, env=env, cwd=self.comfyui, log=self.log, timeout=self.timeout,
                enough=settled, secrets=self.secrets,
            )  # fmt: skip
            code = None if settled.reached else 0
        except process.CommandFailed as failed:
            if failed.code is None and not failed.timed_out:
                raise
            code, output, timed_out = failed.code, failed.output, failed.timed_out
        report = load_report.newest(reports)
        shutil.rmtree(home, ignore_errors=True)
        return Attempt(code, output, report, timed_out)


class _Settled:
    """Whether everything has been loaded for so long that the process should have ended."""

    def __init__(self, reports: Path, on_progress: OnProgress) -> None:
        self._reports, self._on_progress = reports, on_progress
        self._since: float | None = None
        self._timeout = END_TIMEOUT
        self.reached = False

    def __call__(self) -> bool:
        if self._since is None:
            report = load_report.newest(self._reports)
            self._on_progress(None, load_report.in_words(report))
            if report and report.settled:
                self._since = time.monotonic()
                has_threads = any(pack.threads for pack in report.packs.values())
                self._timeout = END_TIMEOUT_WITH_THREADS if has_threads else END_TIMEOUT
        self.reached = self._since is not None and time.monotonic() - self._since > self._timeout
        return self.reached


def _selection(names: set[str], excluded: Collection[str]) -> list[str]:
    if not excluded:
        return []
    chosen = sorted(names - set(excluded))
    return [
        "--disable-all-custom-nodes",
        *(["--whitelist-custom-nodes", *chosen] if chosen else []),
    ]
