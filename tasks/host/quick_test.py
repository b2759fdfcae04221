"""ComfyUI's own `--quick-test-for-ci`: loads everything, ends before it serves, always with 0.

What became of each custom node is told only by the log (measured on 0.3.64); so it is read. Which
node classes each gave is told by nothing, so `class_names` looks when all is loaded.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tasks.host import files, process
from tasks.host.failure import Failure

TIMEOUT = 600.0
"""Seconds; a cold start with many nodes on a slow disk takes a minute."""

CLASS_NAMES = Path(__file__).parent / "class_names.py"
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
    classes: tuple[str, ...] | None = None
    """The node classes that it gave; None: not known."""


@dataclass(frozen=True)
class QuickTest:
    """How to run the test of one generation."""

    python: Path
    comfyui: Path
    scratch: Path
    env: Mapping[str, str]
    args: Sequence[str]
    log: Path
    database: bool = True
    """ComfyUI knows --database-url."""

    def run(self) -> dict[str, Result]:
        """Results by name in custom_nodes. Raises Failure if ComfyUI itself can't start.

        A node may end the whole process; it is found by the last line that was logged before a
        node is loaded, and the rest is tried again without it.
        """
        names = {path.name for path in (self.comfyui / "custom_nodes").iterdir()}
        fatal: dict[str, Result] = {}
        while True:
            others = sorted(names - set(fatal))
            code, said, classes = self._start(
                ["--disable-all-custom-nodes", "--whitelist-custom-nodes", *others] if fatal else []
            )
            if code == 0:
                return _with_classes(parse(said), classes) | fatal
            tried = _TRYING.findall(said)
            name = Path(tried[-1]).name if tried and "Import times" not in said else ""
            last = process.last_line(said)
            if name not in others:
                raise Failure(f"ComfyUI doesn't start (code {code}): {last}", self.log)
            words = "" if _TRYING.match(last) else f": {last}"
            fatal[name] = Result(False, 0.0, f"it ends ComfyUI with code {code}{words}", fatal=True)

    def _start(self, selection: list[str]) -> tuple[int, str, dict[str, Any]]:
        """Run once; (exit code, output, classes by node, empty if nothing tells).

        Its folders are scratch, since the test wipes temp.
        """
        self.scratch.mkdir(parents=True, exist_ok=True)
        home = Path(tempfile.mkdtemp(dir=self.scratch))
        folders = []
        for name in ("user", "input", "output", "temp"):
            (home / name).mkdir()
            folders += [f"--{name}-directory", str(home / name)]
        told = home / "classes.json"
        argv = [self.python, CLASS_NAMES, told, "main.py", "--quick-test-for-ci",
                "--verbose", "DEBUG", *self.args, *folders,
                *(["--database-url", f"sqlite:///{home / 'comfyui.db'}"] if self.database else []),
                *selection]  # fmt: skip
        try:
            said = process.run(argv, env=self.env, cwd=self.comfyui, log=self.log, timeout=TIMEOUT)
            return 0, said, files.read_receipt(told)
        except process.CommandFailed as failed:
            if failed.code is None:
                raise
            return failed.code, failed.output, {}
        finally:
            shutil.rmtree(home, ignore_errors=True)


def receipt_of(generation: Path) -> Path:
    return generation.with_name(f"{generation.name}.validation.json")


def read(generation: Path) -> dict[str, Result]:
    """What became of each custom node of a generation when it was last tried."""
    found = files.read_receipt(receipt_of(generation), nodes=dict).get("nodes", {})
    results = {name: _result(entry) for name, entry in found.items()}
    return {name: result for name, result in results.items() if result}


def unproved(generation: Path) -> frozenset[str]:
    """The nodes whose failure may be due to what only run time has, in that receipt."""
    found = files.read_receipt(receipt_of(generation), unproved=list).get("unproved", [])
    return frozenset(name for name in found if isinstance(name, str))


def _result(entry: Any) -> Result | None:
    """A receipt's entry; None for one that this version can't read."""
    try:
        classes = entry.get("classes")
        return Result(**{**entry, "classes": None if classes is None else tuple(classes)})
    except (AttributeError, TypeError):
        return None


def _with_classes(results: dict[str, Result], classes: dict[str, Any]) -> dict[str, Result]:
    """What was told goes with each node that was imported; a file is named without its ending."""
    if not classes:
        return results
    return {
        name: replace(result, classes=tuple(sorted(classes.get(name.removesuffix(".py"), ()))))
        if result.imported
        else result
        for name, result in results.items()
    }


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
