"""A sample of what `make chaos` tries for 45 minutes."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.chaos import kinds
from tests.rig import PROJECT

CASES = 12


@pytest.mark.timeout(600)
def test_a_machine_comes_right_after_what_befalls_it() -> None:
    words = [sys.executable, "-m", "tests.chaos", "--seed", "1", "--cases", str(CASES)]
    run = subprocess.run(words, cwd=PROJECT, capture_output=True, text=True, timeout=590)
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.splitlines()[-1].split() == ["all", str(CASES), "0"]


def test_each_kind_has_a_name_of_its_own() -> None:
    assert len({kind.name for kind in kinds.KINDS}) == len(kinds.KINDS)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("generations/0a/ComfyUI/custom_nodes/alpha/.git/HEAD", "a node's HEAD"),
        ("generations/0a.2.files.json", "a generation's stamps"),
        ("environments/0a/lib/python3.11/site-packages/yarl/a/b.py", "a package's file"),
        ("state/never/heard/of", None),
    ],
)
def test_a_path_is_of_one_kind_or_of_none(name: str, kind: str | None) -> None:
    found = kinds.kind_of(name)
    assert (found and found.name) == kind
