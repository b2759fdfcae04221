"""The proof: ComfyUI's own `--quick-test-for-ci` loads everything and ends before it serves.

What became of each custom node its own process tells (`load_report`). One that ends the process,
or never finishes, leaves an entry that was begun: a suspicion, since a thread of an earlier one
may have done it. Blamed is only one without which ComfyUI starts.
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
from . import load_report, load_result
from .load_report import Report
from .load_result import Outcome, Result

SERVICES = Path(__file__).parents[2] / "services"
SETTLED, SLOW = 10.0, 60.0
"""Seconds that it may take to end once all is loaded: where a custom node left threads that keep
it, and where none did, since it opens its database first, on whatever disk and cores."""
HANGS = 3
"""Custom nodes that may use up the time, each all of it, before the proof gives up."""


@dataclass(frozen=True)
class Attempt:
    """How one start ended."""

    code: int | None
    """Its exit code, negative: a signal; None: it was ended, out of time or since it had loaded."""
    output: str
    report: Report | None
    timed_out: bool = False

    @property
    def suspect(self) -> str | None:
        """The custom node that was being loaded when it ended."""
        return self.report.unfinished if self.report else None

    @property
    def ok(self) -> bool:
        """Whether it loaded everything. Without a report its exit code is all there is."""
        report = self.report
        if report and report.attached and report.complete:
            return self.code in (0, None)
        told = report is not None and report.whole
        return self.code == 0 and not self.suspect and not told


@dataclass(frozen=True)
class Proof:
    """How to run the proof of one generation."""

    python: Path
    comfyui: Path
    scratch: Path
    env: Mapping[str, str]
    args: Sequence[str]
    log: Path
    timeout: float
    """Seconds for everything."""
    changes: Path | None = None
    """Where its process notes what it changes."""
    database: bool = True
    """ComfyUI knows --database-url."""
    later: Collection[str] = ()
    """Variables that have no value here, and ".env": which custom node asks for them is noted."""
    declared: Collection[str] = ()
    """Custom nodes that ComfyUI is to load."""
    away: Mapping[str, Result] = field(default_factory=dict)
    """Custom nodes that are not tried again, and why."""

    def run(self) -> dict[str, Result]:
        """Results by name in custom_nodes. Raises Failure if ComfyUI itself can't start."""
        names = {path.name for path in (self.comfyui / "custom_nodes").iterdir()}
        away = {name: result for name, result in self.away.items() if name in names}
        attempt, hangs = self._start(names, away), 0
        while not attempt.ok:
            name = attempt.suspect
            hangs += attempt.timed_out
            if name is None or hangs > HANGS:
                raise self._failure(attempt)
            result = self._blamed(attempt)
            without = self._start(names, {*away, name})
            if not (without.ok or attempt.timed_out or self._ends_alone(names, name)):
                name, without = self._earlier(names, away, attempt)
                result = Result(Outcome.ENDED, code=attempt.code)
            away[name] = result
            attempt = without
        self._note_threads(attempt)
        return load_result.of_report(attempt.report or Report(), self.declared) | away

    def _blamed(self, attempt: Attempt) -> Result:
        assert attempt.report is not None
        asked = attempt.report.packs[str(attempt.suspect)].asked
        if attempt.timed_out:
            return Result(Outcome.HUNG, self.timeout, asked=asked)
        return Result(Outcome.ENDED, code=attempt.code, asked=asked)

    def _ends_alone(self, names: set[str], name: str) -> bool:
        return not self._start(names, names - {name}).ok

    def _earlier(
        self, names: set[str], away: Collection[str], attempt: Attempt
    ) -> tuple[str, Attempt]:
        """The one of those loaded before without which ComfyUI starts, and how it did.

        Halves them each time. Raises Failure when no single one is to blame.
        """
        assert attempt.report is not None
        loaded = list(attempt.report.packs)
        left = loaded[: loaded.index(str(attempt.suspect))]
        while len(left) > 1:
            half = left[: len(left) // 2]
            left = half if self._start(names, {*away, *half}).ok else left[len(half) :]
        if left and (without := self._start(names, {*away, *left})).ok:
            return left[0], without
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

    def _note_threads(self, attempt: Attempt) -> None:
        """Who keeps the process from ending; what it left was ended."""
        if attempt.code is None and attempt.report:
            names = [name for name, pack in attempt.report.packs.items() if pack.threads]
            who = f"custom node {', '.join(names)}" if names else "something that was loaded"
            with self.log.open("a") as log:
                print(f"{who} keeps ComfyUI from ending: it was ended", file=log)

    def _start(self, names: set[str], away: Collection[str]) -> Attempt:
        """Run once without these. Its folders are scratch, since the test wipes temp."""
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
                *_selection(names, away)]  # fmt: skip
        env = {**self.env, "COMFY_MACHINE_PROOF": ",".join(self.later) or "-"}
        settled = _Settled(reports)
        code, timed_out = None, False
        try:
            said = process.run(
                argv, env=env, cwd=self.comfyui, log=self.log, timeout=self.timeout, enough=settled
            )
            code = None if settled.reached else 0
        except process.CommandFailed as failed:
            if failed.code is None and not failed.timed_out:
                raise
            code, said, timed_out = failed.code, failed.output, failed.timed_out
        report = load_report.newest(reports)
        shutil.rmtree(home, ignore_errors=True)
        return Attempt(code, said, report, timed_out)


class _Settled:
    """Whether all has been loaded for so long that the process would have ended by itself."""

    def __init__(self, reports: Path) -> None:
        self._reports = reports
        self._since: float | None = None
        self._patience = SLOW
        self.reached = False

    def __call__(self) -> bool:
        if self._since is None:
            report = load_report.newest(self._reports)
            if report and report.settled:
                self._since = time.monotonic()
                left = any(pack.threads for pack in report.packs.values())
                self._patience = SETTLED if left else SLOW
        self.reached = self._since is not None and time.monotonic() - self._since > self._patience
        return self.reached


def _selection(names: set[str], away: Collection[str]) -> list[str]:
    if not away:
        return []
    chosen = sorted(names - set(away))
    return [
        "--disable-all-custom-nodes",
        *(["--whitelist-custom-nodes", *chosen] if chosen else []),
    ]
