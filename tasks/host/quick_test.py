"""ComfyUI's own `--quick-test-for-ci`: loads everything, ends before it serves, always with 0.

What became of each custom node is told only by the log (measured on 0.3.64); so it is read.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.host import process
from tasks.host.failure import Failure

TIMEOUT = 600.0
"""Seconds; a cold start with many nodes on a slow disk takes a minute."""

_TIMES = re.compile(
    r"^\s*(?P<seconds>\d+\.\d+) seconds(?P<failed> \((?:IMPORT|PRESTARTUP) FAILED\))?"
    r": (?P<path>/.+)$"
)
_TRYING = re.compile(r"^Trying to load custom node (?P<path>/.*/custom_nodes/[^/]+)$", re.M)
_GIST = re.compile(r"^[A-Za-z_][\w.]*(: .*)?$")


@dataclass(frozen=True)
class Result:
    """What became of one custom node."""

    imported: bool
    seconds: float
    reason: str = ""
    """The last line of its traceback."""
    fatal: bool = False
    """It ended the whole process: ComfyUI can't start with it."""


@dataclass(frozen=True)
class QuickTest:
    """How to run the test of one generation."""

    python: Path
    comfyui: Path
    scratch: Path
    env: Mapping[str, str]
    args: Sequence[str]
    log: Path

    def run(self) -> dict[str, Result]:
        """Results by name in custom_nodes. Raises Failure if ComfyUI itself can't start.

        A node may end the whole process; it is found by the last line that was logged before a
        node is loaded, and the rest is tried again without it.
        """
        names = {path.name for path in (self.comfyui / "custom_nodes").iterdir()}
        fatal: dict[str, Result] = {}
        while True:
            selection = ["--disable-all-custom-nodes"] if fatal else []
            if others := sorted(names - set(fatal)):
                selection += ["--whitelist-custom-nodes", *others] if fatal else []
            code, said = self._start(selection)
            if code == 0:
                return parse(said) | fatal
            tried = _TRYING.findall(said)
            name = Path(tried[-1]).name if tried and not _TIMES.search(said) else ""
            if name not in names or name in fatal:
                raise Failure(
                    f"ComfyUI doesn't start (code {code}): {process.last_line(said)}", self.log
                )
            why = f"it ends ComfyUI with code {code}: {process.last_line(said)}"
            if process.last_line(said).startswith("Trying to load"):
                why = f"it ends ComfyUI with code {code}"
            fatal[name] = Result(False, 0.0, why, fatal=True)

    def _start(self, selection: list[str]) -> tuple[int, str]:
        """Run once; (exit code, output). Its folders are scratch, since the test wipes temp."""
        self.scratch.mkdir(parents=True, exist_ok=True)
        home = Path(tempfile.mkdtemp(dir=self.scratch))
        folders = []
        for name in ("user", "input", "output", "temp"):
            (home / name).mkdir()
            folders += [f"--{name}-directory", str(home / name)]
        argv = [str(self.python), "main.py", "--quick-test-for-ci", "--verbose", "DEBUG",
                *self.args, *folders, "--database-url", f"sqlite:///{home / 'comfyui.db'}",
                *selection]  # fmt: skip
        try:
            said = process.run(argv, env=self.env, cwd=self.comfyui, log=self.log, timeout=TIMEOUT)
        except process.CommandFailed as failed:
            if failed.code is None:
                raise
            return failed.code, failed.output
        finally:
            shutil.rmtree(home, ignore_errors=True)
        return 0, said


def parse(log: str) -> dict[str, Result]:
    """Results by name in custom_nodes, from a start-up log. A failure of either phase counts."""
    lines = log.splitlines()
    results: dict[str, Result] = {}
    for match in filter(None, map(_TIMES.match, lines)):
        path = match["path"]
        failed = match["failed"] is not None
        if Path(path).name not in results or failed:
            reason = _reason(lines, path) if failed else ""
            results[Path(path).name] = Result(not failed, float(match["seconds"]), reason)
    return results


def _reason(lines: list[str], path: str) -> str:
    """The last line of the traceback before ComfyUI's complaint of `path`, else the complaint."""
    for number, line in enumerate(lines):
        if path not in line or _TIMES.match(line) or _TRYING.match(line):
            continue
        if line.startswith(f"Cannot import {path} "):
            for above in reversed(lines[:number]):
                if _GIST.match(above):
                    return above
        if not line.startswith((" ", "\t")):
            return line
    return "see the log"
