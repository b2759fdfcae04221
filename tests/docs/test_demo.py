"""`make demo`, the first command of the README."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from comfy_machine.spec.layout import Layout
from tests.conftest import link_supervisor, uv_cache
from tests.docs.test_pages import Left
from tests.rig import DOIT, PROJECT


@pytest.mark.timeout(300)
def test_the_demo_makes_pictures_without_a_port_of_its_own(
    tmp_path: Path, supervisor: Path
) -> None:
    folder = tmp_path / "simulation"
    shutil.copytree(
        PROJECT / "examples" / "simulation", folder,
        ignore=shutil.ignore_patterns("workspace", "machine.lock", "__pycache__"),
    )  # fmt: skip
    link_supervisor(supervisor, Layout(folder / "workspace"))
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "UV_CACHE_DIR": uv_cache()}
    doit = f"DOIT={DOIT} machine={folder}/machine.yaml"
    words = ["make", "--directory", str(PROJECT), f"VENV={Path(sys.executable).parents[1]}", doit]
    try:
        demo = subprocess.run([*words, "demo"], env=env, capture_output=True, text=True)
        assert demo.returncode == 0, demo.stdout + demo.stderr
        assert len(list(folder.glob("workspace/shared/outputs/gpu*/smoke/*.png"))) == 2
        down = subprocess.run([*words, "down"], env=env, capture_output=True, text=True)
        assert down.returncode == 0, down.stdout + down.stderr
    finally:
        Left(folder, {}).close()
