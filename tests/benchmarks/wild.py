"""Custom nodes as they are: how many runs and edits a list of them takes, and what runs cost then.

    python -m tests.benchmarks.wild PLAIN [EDITED ...] [--add URL ...] [--rounds 3] [--comfy-cli]

PLAIN and EDITED are machine files: the list as somebody has it, and what it became by doing what
messages said. Each is built and started in turn, in one temporary workspace, until a run succeeds.
Then it is measured

- how a second run compares with doit itself on that many tasks that have nothing to do;
- what it takes to add a pack, one `--add` after the other: the proof, repeated, against a bare
  `main.py --quick-test-for-ci` in the same generation, and all the rest against
  `comfy node install` of the same pack into a copy of the same installation (`--comfy-cli`).

Paths in the files are read as if they stood where they are; git and the package tools are asked as
the caller's environment has them. Ends with 1 when a figure is missed.
"""

from __future__ import annotations

import argparse
import difflib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from comfy_machine.host.comfyui import load_result
from comfy_machine.host.system import private_folder, run_journal
from comfy_machine.spec.layout import Layout
from tests.benchmarks.figures import at_most, conclude, exit_on_signals, miss, run

PROJECT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
COMFY_CLI = "comfy-cli==1.23.*"
MODES: tuple[list[str], ...] = ([], ["--fast-deps"])
"""The ways in which comfy-cli installs what a pack asks for; the fastest counts."""
RUNS, FLOOR, REST, PROOF = 3, 1.5, 0.5, 1.05
"""Asked for: runs until it is healthy; a second run over doit itself; adding a pack without its
proof over comfy-cli; the proof over a bare quick test."""
LONGEST, THEIR_LONGEST = 1800.0, 300.0
"""Seconds that one command may take, and comfy-cli for one pack."""
CERTIFIED = os.environ | {"UV_SYSTEM_CERTS": "true"}
"""The environment of uv, which then trusts what this system trusts."""
PROOF_TASK = "validation"
PAIRS = 4
"""Proofs and bare quick tests of each pack."""
IDLE = """\
def task_idle():
    for number in range({tasks}):
        yield {{"name": str(number), "actions": [lambda: None], "uptodate": [True]}}
"""


@dataclass(frozen=True)
class Bench:
    """One machine in a folder of its own."""

    folder: Path

    @property
    def file(self) -> Path:
        return self.folder / "machine.yaml"

    @property
    def layout(self) -> Layout:
        return Layout(self.folder / "workspace")

    @property
    def generation(self) -> Path:
        return self.layout.current.resolve()

    def doit(self, *words: str) -> tuple[int, float, str]:
        """Exit code, seconds and output of one run."""
        return run([BIN / "doit", *words, f"machine={self.file}"], PROJECT, timeout=LONGEST)

    def write(self, spec: dict[str, Any]) -> None:
        self.file.write_text(yaml.safe_dump(spec, sort_keys=False))

    def seconds(self) -> dict[str, float]:
        """What each task of the last run took that did something."""
        told = run_journal.read(self.layout)
        done = [task for task in told.tasks if task.state in ("done", "failed")] if told else []
        return {task.name: task.seconds or 0.0 for task in done}


def read(file: Path) -> dict[str, Any]:
    """A machine file, its paths made absolute."""
    spec: dict[str, Any] = yaml.safe_load(file.read_text())
    spec["workspace"] = "workspace"
    for entry in [spec["comfyui"], *spec.get("custom_nodes", [])]:
        if "path" in entry:
            entry["path"] = str((file.parent / entry["path"]).resolve())
    return spec


def edits(before: Path, after: Path) -> list[str]:
    """The lines that were changed or added."""
    lines = difflib.ndiff(before.read_text().splitlines(), after.read_text().splitlines())
    return [line[2:].strip() for line in lines if line.startswith("+ ")]


def install(bench: Bench, files: Sequence[Path]) -> dict[str, Any] | None:
    """Go from the plain list to a healthy machine; what it says then."""
    edited = 0
    for number, file in enumerate(files, 1):
        if number > 1:
            changed = edits(files[number - 2], file)
            edited += len(changed)
            print("\n".join(f"  edit: {line}" for line in changed))
        spec = read(file)
        bench.write(spec)
        code, seconds, output = bench.doit("up")
        print(f"run {number} of {file.name}: exit code {code}, {seconds:.1f} s; {stages(bench)}")
        if code == 0:
            nodes = len(spec.get("custom_nodes", []))
            failed = output.count("\n! ")
            print(f"healthy with {nodes} custom nodes, {failed} warnings, {edited} edited lines")
            at_most("runs until it is healthy", number, RUNS)
            return spec
        print("\n".join(f"  {line[:300]}" for line in output.splitlines() if line[:1] in "✗!"))
    miss("it became healthy")
    return None


def stages(bench: Bench) -> str:
    """Where the seconds went: the stages, nodes and models taken together."""
    spent: dict[str, float] = {}
    for name, seconds in bench.seconds().items():
        stage = name.partition(":")[0] if name.startswith(("nodes:", "models:")) else name
        spent[stage] = max(spent.get(stage, 0.0), seconds)
    longest = sorted(spent.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {seconds:.1f} s" for name, seconds in longest if seconds >= 0.1)


def measure_no_op(bench: Bench, rounds: int) -> None:
    code, _, output = bench.doit()
    told = run_journal.read(bench.layout)
    if code or "nothing to do" not in output:
        miss("a second run has nothing to do")
        print(output)
    idle = bench.folder / "idle.py"
    idle.write_text(IDLE.format(tasks=len(told.tasks) if told else 1))
    ours, floor = [], []
    for _ in range(rounds):
        floor.append(run([BIN / "doit", "-f", idle], bench.folder)[1])
        ours.append(bench.doit()[1])
    ratio = statistics.median(ours) / statistics.median(floor)
    more = f": {statistics.median(ours):.2f} s, doit itself {statistics.median(floor):.2f} s"
    at_most("a second run over doit itself", ratio, FLOOR, more=more)


def measure_adding(
    bench: Bench, spec: dict[str, Any], urls: Sequence[str], theirs: Theirs | None
) -> None:
    rests, proofs, others = [], [], []
    for url in urls:
        if theirs:
            theirs.copy(bench)
            others.append(theirs.install(url))
        spec["custom_nodes"].append({"url": url})
        bench.write(spec)
        code, seconds, output = bench.doit("build")
        print(f"adding {url.rsplit('/', 1)[-1]}: {seconds:.1f} s; {stages(bench)}")
        if code:
            print(output)
            miss(f"{url} was added")
            continue
        rests.append(seconds - bench.seconds().get(PROOF_TASK, 0.0))
        if others:
            print(f"  all but the proof {rests[-1]:.1f} s, comfy-cli {others[-1]:.1f} s")
        proofs += [proof_over_quick_test(bench, number) for number in range(PAIRS)]
    if proofs:
        at_most("the proof over a bare quick test", statistics.median(proofs), PROOF)
    if rests and others:
        ratio = statistics.median(rests) / statistics.median(others)
        more = f": {statistics.median(rests):.2f} s, comfy-cli {statistics.median(others):.2f} s"
        at_most("adding a pack without its proof over comfy-cli", ratio, REST, more=more)


def proof_over_quick_test(bench: Bench, number: int) -> float:
    """The proof over a bare quick test of the same generation; they take turns in going first."""

    def prove() -> float:
        load_result.receipt_of(bench.generation).unlink()
        code, _, output = bench.doit("validation")
        if code:
            print(output)
            miss("a generation was proved again")
        return bench.seconds()[PROOF_TASK]

    if number % 2:
        bare = quick_test(bench)
        return prove() / bare
    proof = prove()
    return proof / quick_test(bench)


def quick_test(bench: Bench) -> float:
    """Seconds of ComfyUI's own, in the generation that was just proved."""
    comfyui = bench.generation / "ComfyUI"
    python = bench.generation / "environment" / "bin" / "python"
    database = f"sqlite:///{bench.folder / 'quick.db'}"
    words = ["main.py", "--cpu", "--quick-test-for-ci", "--database-url", database]
    code, seconds, output = run([python, *words], comfyui, timeout=LONGEST)
    if code:
        print(output)
        miss("a bare quick test passed")
    return seconds


class Theirs:
    """comfy-cli, and a copy of the installation that it adds packs to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.workspace = folder / "ComfyUI"
        self._program = folder / "comfy-cli" / "bin" / "comfy"
        caches = Path.home() / ".cache"
        # Its settings are its own, the package caches the ones that our side has too.
        self._env = {
            "HOME": str(folder),
            "DO_NOT_TRACK": "1",
            "UV_SYSTEM_CERTS": "true",
            "UV_CACHE_DIR": os.environ.get("UV_CACHE_DIR", str(caches / "uv")),
            "PIP_CACHE_DIR": os.environ.get("PIP_CACHE_DIR", str(caches / "pip")),
        }
        commands: tuple[list[str | Path], ...] = (
            [BIN / "uv", "venv", "--quiet", "--python", sys.executable, folder / "comfy-cli"],
            [BIN / "uv", "pip", "install", "--quiet", "--python",
             folder / "comfy-cli" / "bin" / "python", COMFY_CLI],
        )  # fmt: skip
        for command in commands:
            code, _, output = run(command, folder, CERTIFIED, LONGEST)
            if code:
                raise SystemExit(output)

    def copy(self, bench: Bench) -> None:
        shutil.rmtree(self.workspace, ignore_errors=True)
        shutil.copytree(bench.generation / "ComfyUI", self.workspace, symlinks=True)
        (self.workspace / "models").unlink(missing_ok=True)
        environment = (bench.generation / "environment").resolve()
        venv = self.workspace / ".venv"
        # Package tools replace files, they don't write into them.
        subprocess.run(["cp", "-al", environment, venv], check=True)
        # Its way to install packs needs the Manager as a package.
        run([BIN / "uv", "pip", "install", "--quiet", "--python", venv / "bin" / "python",
             "comfyui_manager"], self.folder, CERTIFIED)  # fmt: skip

    def install(self, url: str) -> float:
        """Seconds of the fastest way that works; of each mode a copy is undone by hand."""
        found = []
        name = url.removesuffix(".git").rsplit("/", 1)[-1]
        for mode in MODES:
            shutil.rmtree(self.workspace / "custom_nodes" / name, ignore_errors=True)
            words = ["node", "install", "--exit-on-fail", *mode, url]
            command: list[str | Path] = [
                self._program,
                "--skip-prompt",
                "--workspace",
                self.workspace,
                *words,
            ]
            code, seconds, output = run(command, self.folder, os.environ | self._env, THEIR_LONGEST)
            if seconds >= THEIR_LONGEST:
                print(f"  comfy node install {' '.join(mode)} was ended after {seconds:.0f} s")
                found.append(seconds)
            elif code == 0 and (self.workspace / "custom_nodes" / name).is_dir():
                found.append(seconds)
            else:
                print(f"  comfy node install {' '.join(mode)} failed: {output[-300:]}")
        if not found:
            miss(f"comfy-cli installed {name}")
        return min(found, default=float("nan"))


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Everything in it ends with it, the machine too."""
    folder = Path(tempfile.mkdtemp(prefix="comfy-machine-benchmark-")).resolve()
    try:
        yield folder
    finally:
        if (folder / "machine.yaml").exists():
            Bench(folder).doit("down")
        shutil.rmtree(private_folder.folder(folder / "workspace"), ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="machine files")
    parser.add_argument("--add", nargs="*", default=[], metavar="URL", help="packs to add then")
    parser.add_argument("--rounds", type=int, default=5, help="of the second run")
    parser.add_argument("--comfy-cli", action="store_true", help="compare with it")
    arguments = parser.parse_args()
    exit_on_signals()
    with temporary_folder() as folder:
        bench = Bench(folder)
        if spec := install(bench, arguments.files):
            measure_no_op(bench, arguments.rounds)
            theirs = None
            if arguments.comfy_cli:
                (folder / "theirs").mkdir()
                theirs = Theirs(folder / "theirs")
            measure_adding(bench, spec, arguments.add, theirs)
    return conclude()


if __name__ == "__main__":
    sys.exit(main())
