"""The benchmark of isolated environments runs, tiny: no figure is held to a limit here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tasks.host.storage import digest_folders, trees
from tasks.spec.layout import Layout
from tests.rig import PROJECT


def test_it_runs_and_prints_its_figures(built: Layout, tmp_path: Path) -> None:
    (home,) = digest_folders.list_folders(built.environments)
    trees.copy(home, tmp_path / "environment", lambda _: False)
    words = ["--environment", str(tmp_path / "environment"), "--rounds", "1"]
    ended = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.environments", *words],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    for figure in ("grown: native libraries shared", "all hard links", "all copied", "read whole"):
        assert figure in ended.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["environment"]
