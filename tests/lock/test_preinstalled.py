"""torch: preinstalled — the base interpreter's own torch is used, and nothing touches it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.bases import Base, make_base
from tests.conftest import MachineMaker
from tests.forge import Forge
from tests.lock.test_stage import lock_of
from tests.rig import SIMULATOR, Rig, snapshot
from tests.wheels import wheel

pytestmark = pytest.mark.afresh


@pytest.fixture
def base(tmp_path: Path) -> Base:
    return make_base(tmp_path / "base")


@pytest.fixture
def rig(machine: MachineMaker, forge: Forge, base: Base, tmp_path: Path) -> Rig:
    """A machine whose ComfyUI asks for torch and torchvision, on a doit of that base."""
    comfyui = forge.copy("ComfyUI", SIMULATOR)
    asked = (SIMULATOR / "requirements.txt").read_text() + "torch\ntorchvision>=0.20\n"
    comfyui.commit({"requirements.txt": asked})
    rig = machine(comfyui={"repo": comfyui.url}, python={"torch": "preinstalled"})
    rig.program = base.doit(tmp_path / "of-base")
    return rig


def imported(rig: Rig, name: str) -> list[str]:
    """Version and file of a module that the machine's Python imports."""
    script = f"import {name}; print({name}.__version__, {name}.__file__)"
    python = str(rig.environment / "bin" / "python")
    return subprocess.check_output([python, "-I", "-c", script], text=True).split()


def test_the_torch_of_the_base_is_used_and_none_is_installed(
    rig: Rig, base: Base, forge: Forge
) -> None:
    base.install("torch", "2.7.0+nv25.3")
    base.install("torchvision", "0.22.0")
    before = snapshot(base.site)
    rig.doit("build")
    assert imported(rig, "torch") == ["2.7.0+nv25.3", str(base.site / "torch" / "__init__.py")]
    assert imported(rig, "torchvision")[0] == "0.22.0"
    assert not {"torch", "torchvision", "torchaudio"} & set(rig.packages())
    locked = lock_of(rig)["python"]
    assert locked["asked"]["torch"] == "preinstalled"
    assert "torch" not in locked["packages"]
    assert rig.doit("build").executed == set()
    assert rig.doit("build", "locked=1").executed == set()
    alpha = forge.node("alpha", {"requirements.txt": "toml\ntorch>=2.7\ntorchaudio\n"})
    rig.spec["custom_nodes"] = [{"url": alpha.url}]
    run = rig.doit("build")
    assert "alpha requires torchaudio, which isn't preinstalled: it will be missing" in run.output
    assert "toml" in rig.packages()
    assert imported(rig, "torch")[0] == "2.7.0+nv25.3"
    rig.spec["custom_nodes"] = [{"url": forge.node("beta", {"requirements.txt": "torch>=9"}).url}]
    run = rig.doit("build", code=2)
    assert (
        "custom node beta requires 'torch>=9' (requirements.txt:1), but torch 2.7.0+nv25.3 is "
        "preinstalled: use another ref of it, or another torch" in run.output
    )
    assert snapshot(base.site) == before


def test_a_base_without_torch_is_one_clear_line_and_no_lock_hides_it(
    rig: Rig, base: Base, forge: Forge
) -> None:
    alpha = forge.node("alpha", {"requirements.txt": "torch>=2\n"})
    rig.spec["custom_nodes"] = [{"url": alpha.url}]
    said = f"python.torch is preinstalled, and {base.python} has no torch: make .venv"
    run = rig.doit("build", code=2)
    assert run.failed == {"lock"}
    assert said in run.output
    assert not rig.lock_file.exists()
    base.install("torch", "2.7.0")
    rig.doit("lock")
    base.uninstall("torch")
    assert said in rig.doit("lock", "locked=1", code=1).output
    base.install("torch", "1.0")
    refused = "custom node alpha requires 'torch>=2' (requirements.txt:1), but torch 1.0 is pre"
    assert refused in rig.doit("lock", "locked=1", code=1).output
    rig.spec["custom_nodes"][0]["optional"] = True
    assert f"! custom node alpha (optional) is left out: {refused}" in rig.doit("lock").output
    base.uninstall("torch")
    base.install("torch", "2.7.0")
    assert "left out" not in rig.doit("lock").output


def test_a_script_that_brings_its_own_torch_fails_by_name(
    rig: Rig, base: Base, forge: Forge, tmp_path: Path
) -> None:
    base.install("torch", "2.7.0")
    before = snapshot(base.site)
    wheel(tmp_path / "links", "torch", "2.4.0")
    pip = f"python -m pip --isolated install -q --no-index -f {tmp_path / 'links'} torch==2.4.0"
    rig.spec["custom_nodes"] = [{"url": forge.node("alpha").url, "script": pip, "optional": True}]
    run = rig.doit("build")
    said = "the script of custom node alpha installed torch 2.4.0 over the preinstalled one"
    assert f"! {said} (removed): the node needs another torch" in run.output
    assert imported(rig, "torch")[0] == "2.7.0"
    assert "torch" not in rig.packages()
    assert snapshot(base.site) == before
