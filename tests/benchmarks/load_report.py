"""What the load report costs: the build's proof, and the start of an instance.

Pairs take turns in going first. The proof, with all that belongs to it, is held against a bare
`main.py --quick-test-for-ci`, an instance through the exec shim against a bare `main.py`; counted
are CPU seconds, until the process has ended, and until it answers.

    python tests/benchmarks/load_report.py --comfyui DIR --python FILE [--pairs 20]

DIR is a ComfyUI with its custom nodes, named so and alone in its folder; FILE the interpreter that
has its packages, the hook of comfy-machine is put beside these. Without them it is the simulator
with five custom nodes. Ends with 1 when a figure is missed.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from comfy_machine.host.comfyui import api
from comfy_machine.host.comfyui.quick_test import Proof
from comfy_machine.host.generations import reported_changes
from comfy_machine.host.python import pth_hook
from comfy_machine.host.system import process
from comfy_machine.host.system.program_files import SERVICES
from tests.benchmarks.figures import at_most, conclude, exit_on_signals

PROJECT = Path(__file__).parents[2]
SIMULATOR = PROJECT / "examples" / "simulation" / "comfyui"
NODE = (
    "class {name}:\n    INPUT_TYPES = classmethod(lambda cls: {{'required': {{}}}})\n"
    "    RETURN_TYPES = ()\n    FUNCTION = 'run'\nNODE_CLASS_MAPPINGS = {{'{name}': {name}}}\n"
)
PROOF, START = 1.05, 1.02
"""Asked for: CPU seconds over those of the bare program."""
PATIENCE = 300.0
"""Seconds that a start may take."""


@dataclass(frozen=True)
class Bench:
    """One ComfyUI, and where it may write."""

    comfyui: Path
    python: Path
    scratch: Path

    @property
    def env(self) -> dict[str, str]:
        return process.allowed_environment(os.environ)

    @property
    def changes(self) -> Path:
        return reported_changes.file_of(self.comfyui.parent)

    def folders(self) -> list[str]:
        home = Path(tempfile.mkdtemp(dir=self.scratch))
        words = ["--database-url", f"sqlite:///{home / 'comfyui.db'}"]
        for name in ("user", "input", "output", "temp"):
            (home / name).mkdir()
            words += [f"--{name}-directory", str(home / name)]
        return words

    def bare_proof(self) -> float:
        words = [str(self.python), "main.py", "--quick-test-for-ci", "--cpu", *self.folders()]
        with _cpu() as spent:
            subprocess.run(
                words, cwd=self.comfyui, env=self.env, check=True, stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
        return spent[0]

    def proof(self) -> float:
        proof = Proof(
            python=self.python,
            comfyui=self.comfyui,
            scratch=self.scratch / "proof",
            env=self.env,
            args=["--cpu"],
            log=self.scratch / "proof.log",
            timeout=PATIENCE,
            changes=self.changes,
        )
        with _cpu() as spent:
            results = proof.run().results
        assert all(result.loaded for result in results.values()), results
        return spent[0]

    def bare_start(self) -> float:
        return self._start([])

    def start(self) -> float:
        shim = [sys.executable, "-I", str(SERVICES / "shim.py")]
        told = ["--report", str(self.scratch / "reports"), "--changes", str(self.changes)]
        return self._start([*shim, *told, "--"])

    def _start(self, before: Sequence[str]) -> float:
        port = _free_port()
        words = [*before, str(self.python), "main.py", "--cpu", "--port", str(port)]
        child = subprocess.Popen(
            [*words, *self.folders()], cwd=self.comfyui, env=self.env, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            deadline = time.monotonic() + PATIENCE
            while not api.probe("127.0.0.1", port).healthy:
                assert child.poll() is None, "it ended"
                assert time.monotonic() < deadline, "it doesn't answer"
                time.sleep(0.05)
            times = psutil.Process(child.pid).cpu_times()
            return float(times.user + times.system)
        finally:
            child.send_signal(signal.SIGINT)
            try:
                child.wait(30)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


@contextmanager
def _cpu() -> Iterator[list[float]]:
    """CPU seconds of children that ended meanwhile, in a list of one."""
    spent = [0.0]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    yield spent
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent[0] = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def compare(what: str, ours: Callable[[], float], bare: Callable[[], float], pairs: int) -> float:
    """Alternate; the ratio of the medians, with the spread printed."""
    found: dict[str, list[float]] = {"ours": [], "bare": []}
    ours()
    bare()
    for number in range(pairs):
        order = [("ours", ours), ("bare", bare)]
        for name, run in order if number % 2 else order[::-1]:
            found[name].append(run())
    for name, seconds in found.items():
        print(
            f"{what}, {name}: median {statistics.median(seconds):.2f} s of CPU "
            f"({min(seconds):.2f} to {max(seconds):.2f})"
        )
    ratios = [one / other for one, other in zip(found["ours"], found["bare"], strict=True)]
    print(f"{what}, pair by pair: {min(ratios):.3f} to {max(ratios):.3f}")
    return statistics.median(found["ours"]) / statistics.median(found["bare"])


def simulator(folder: Path) -> Path:
    """A copy with five custom nodes."""
    there = folder / "generation" / "ComfyUI"
    shutil.copytree(SIMULATOR, there, ignore=shutil.ignore_patterns("__pycache__"))
    for number in range(5):
        file = there / "custom_nodes" / f"node{number}" / "__init__.py"
        file.parent.mkdir()
        file.write_text(NODE.format(name=f"Node{number}"))
    return there


def environment(folder: Path) -> Path:
    """An interpreter that sees this project's packages, and has a place of its own for the hook."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    site = next((folder / "lib").glob("python*/site-packages"))
    (site / "project.pth").write_text("\n".join(p for p in sys.path if "site-packages" in p) + "\n")
    return folder / "bin" / "python"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--comfyui", type=Path)
    parser.add_argument("--python", type=Path)
    parser.add_argument("--pairs", type=int, default=20)
    wanted = parser.parse_args()
    exit_on_signals()
    with tempfile.TemporaryDirectory() as scratch:
        here = Path(scratch)
        code = wanted.comfyui.resolve() if wanted.comfyui else simulator(here)
        python = wanted.python.absolute() if wanted.python else environment(here / "venv")
        pth_hook.write(next((python.parents[1] / "lib").glob("python*/site-packages")))
        bench = Bench(code, python, here)
        proof = compare("proof", bench.proof, bench.bare_proof, wanted.pairs)
        start = compare("start", bench.start, bench.bare_start, wanted.pairs)
    at_most("CPU of the proof over that of --quick-test-for-ci", proof, PROOF)
    at_most("CPU of a start with the report over that of one without", start, START)
    return conclude()


if __name__ == "__main__":
    sys.exit(main())
