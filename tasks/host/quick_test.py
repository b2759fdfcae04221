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
_ATTEMPT = "Trying to load custom node "
_TRYING = re.compile(rf"^{_ATTEMPT}(?P<path>/.*/custom_nodes/[^/\n]+)$", re.M)
_BUILTIN = re.compile(r"^IMPORT FAILED: (?P<name>\S+\.py)$")
_ENTRY = re.compile(r"^\d{4}-\d\d-\d\dT[\d:.]+ - ")
"""What /internal/logs puts before each entry."""
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
            others = sorted(names - set(fatal))
            code, said = self._start(["--disable-all-custom-nodes", "--whitelist-custom-nodes",
                                      *others] if fatal else [])  # fmt: skip
            if code == 0:
                return parse(said) | fatal
            tried = _TRYING.findall(said)
            name = Path(tried[-1]).name if tried and "Import times" not in said else ""
            last = process.last_line(said)
            if name not in others:
                raise Failure(f"ComfyUI doesn't start (code {code}): {last}", self.log)
            words = "" if _TRYING.match(last) else f": {last}"
            fatal[name] = Result(False, 0.0, f"it ends ComfyUI with code {code}{words}", fatal=True)

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
    """Results by name in custom_nodes, from a start-up log. A failure of either phase counts.

    What failed of ComfyUI's own nodes is in it by path, `comfy_extras/nodes_audio.py`.
    """
    lines = [_ENTRY.sub("", line) for line in log.splitlines()]
    results: dict[str, Result] = {}
    for match in filter(None, map(_BUILTIN.match, lines)):
        name = f"comfy_extras/{match['name']}"
        results[name] = Result(False, 0.0, _reason(lines, name))
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
        if path not in line or _TIMES.match(line) or line.startswith(_ATTEMPT):
            continue
        if re.match(rf"Cannot import \S*{re.escape(path)} ", line):
            for above in reversed(lines[:number]):
                if _GIST.match(above):
                    return above
        if not line.startswith((" ", "\t")):
            return line
    return "see the log"
