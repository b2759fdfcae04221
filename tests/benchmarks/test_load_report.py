"""The benchmark of the load report runs, tiny: no figure is held to a limit here."""

from __future__ import annotations

import subprocess
import sys

from tests.rig import PROJECT


def test_it_runs_and_prints_its_figures() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.load_report", "--pairs", "1"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=170,
    )
    assert ended.returncode in (0, 1), ended.stderr
    assert "CPU of the proof over that of --quick-test-for-ci" in ended.stdout, ended.stderr
    assert "CPU of a start with the report" in ended.stdout, ended.stderr
