"""The nightly lane, on the simulator: what moved upstream is told, and what no longer holds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import uv_cache
from tests.forge import Forge
from tests.rig import PROJECT, SIMULATOR


@pytest.mark.timeout(300)
def test_what_moved_and_what_no_longer_holds_is_told(forge: Forge, tmp_path: Path) -> None:
    comfyui, node = forge.copy("ComfyUI", SIMULATOR), forge.node("pack")
    first = comfyui.git("rev-parse", "HEAD")
    spec = {
        "workspace": "elsewhere",
        "comfyui": {"repo": "https://localhost/ComfyUI", "ref": "v1"},
        "python": {"torch": "none"},
        "custom_nodes": [{"url": node.url, "ref": node.git("rev-parse", "HEAD")}],
    }
    (tmp_path / "machine.yaml").write_text(yaml.safe_dump(spec))

    def today() -> tuple[int, str]:
        ended = subprocess.run(
            [sys.executable, "-m", "tests.today", "--machine", tmp_path / "machine.yaml",
             "--comfyui", comfyui.url, "--state", tmp_path / "state", "--contract"],
            cwd=PROJECT, timeout=280, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env={**os.environ, "UV_CACHE_DIR": uv_cache(), "XDG_CACHE_HOME": str(tmp_path / "c")},
        )  # fmt: skip
        return ended.returncode, ended.stdout

    code, said = today()
    assert code == 0, said
    assert "first run: nothing to compare with" in said
    assert "all holds" in said

    flags = (comfyui.folder / "simulation" / "flags.py").read_text()
    comfyui.commit({"simulation/flags.py": flags.replace("--preview-size", "--preview-width")})
    node.commit({"__init__.py": "import no_such_module\n"})
    code, said = today()
    assert code == 1, said
    second = comfyui.git("rev-parse", "HEAD")
    assert f"moved: ComfyUI {first[:12]} → {second[:12]}" in said
    assert "moved: custom node pack " in said
    assert "moved: flags: --preview-size gone" in said
    assert "moved: flags: --preview-width new" in said
    assert "no longer holds: doit build: validation: custom node pack doesn't import: " in said
