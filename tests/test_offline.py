"""A machine that was built comes up, and stays as it is, with no network but loopback."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from comfy_machine.host.pm2 import pm2
from comfy_machine.host.system import files, private_folder
from tests.conftest import MachineMaker
from tests.forge import Forge
from tests.rig import PROJECT, SIMULATOR, Ended, Rig

pytestmark = pytest.mark.afresh

ISOLATED = ["unshare", "--net", "--map-root-user", "sh", "-c", 'ip link set lo up && "$@"', "sh"]


def can_isolate() -> bool:
    if not (shutil.which("unshare") and shutil.which("ip")):
        return False
    return subprocess.run([*ISOLATED, "true"], capture_output=True).returncode == 0


@pytest.mark.skipif(not can_isolate(), reason="needs unshare and ip, and the right to use them")
def test_up_and_the_second_run_need_only_the_loopback_interface(
    machine: MachineMaker, forge: Forge
) -> None:
    rig = machine(custom_nodes=[{"url": forge.node("alpha").url, "ref": "main"}])
    rig.doit("build")
    runs = isolated(rig, "{doit} up && {doit} up && {doit} smoke")
    assert runs.code == 0, runs.output
    assert "instances:start" in runs.executed
    assert "nothing to do" in runs.output
    assert "✓ comfyui-gpu0: " in runs.output


@pytest.mark.skipif(not can_isolate(), reason="needs unshare and ip, and the right to use them")
def test_pm2_is_installed_anew_from_npms_cache(tmp_path: Path, supervisor: Path) -> None:
    """The `supervisor` fixture has filled the cache."""
    rig = Rig(tmp_path, {"workspace": "ws", "comfyui": {"path": str(SIMULATOR)}})
    runs = isolated(rig, "timeout 100 {doit} supervisor")
    files.remove(private_folder.folder(rig.workspace))
    assert runs.code == 0, runs.output
    assert "supervisor" in runs.executed
    assert pm2.script(rig.layout).is_file()


@pytest.mark.skipif(not can_isolate(), reason="needs unshare and ip, and the right to use them")
def test_a_lock_and_warm_caches_build_an_empty_workspace(
    machine: MachineMaker, forge: Forge, tmp_path: Path
) -> None:
    project = '[project]\nname = "tiny"\nversion = "1.0"\n[tool.setuptools]\npackages = []\n'
    tiny = forge.repository("tiny", {"pyproject.toml": project})
    part = forge.repository("part", {"part.py": "VALUE = 1\n"})
    alpha = forge.node("alpha", {"requirements.txt": f"toml\ntiny @ git+{tiny.url}\n"})
    beta = forge.node("beta")
    beta.git("-c", "protocol.file.allow=always", "submodule", "add", "--quiet", part.url, "part")
    beta.commit({})
    warm = machine(
        comfyui={"repo": forge.copy("ComfyUI", SIMULATOR).url, "ref": "main"},
        custom_nodes=[{"url": alpha.url}, {"url": beta.url, "ref": "main", "recursive": True}],
    )
    warm.env |= {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "protocol.file.allow",
        "GIT_CONFIG_VALUE_0": "always",
    }
    warm.doit("build")
    packages = warm.packages()
    # No repository is left: only the caches have them. The `supervisor` fixture has filled npm's.
    forge.folder.rename(tmp_path / "away")
    shutil.rmtree(warm.workspace)
    for name, how in (("locked", "locked=1"), ("unlocked", "")):
        rig = Rig(tmp_path / name, warm.spec, warm.env)
        rig.folder.mkdir()
        shutil.copy(warm.lock_file, rig.lock_file)
        runs = isolated(rig, f"{{doit}} build {how} && {{doit}} build {how}")
        files.remove(private_folder.folder(rig.workspace))
        assert runs.code == 0, runs.output
        assert {"supervisor", "lock", "environment", "validation"} <= runs.executed
        assert runs.moves == set(), "nothing is newer than the lock"
        assert "nothing to do" in runs.output
        assert rig.packages() == packages
        assert {"tiny", "toml"} <= set(packages)
        assert (rig.comfyui / "custom_nodes" / "beta" / "part" / "part.py").is_file()
        assert rig.lock_file.read_text() == warm.lock_file.read_text()


def isolated(rig: Rig, script: str) -> Ended:
    """Ended a shell script in a network of its own; `{doit}` is doit on the machine."""
    doit = f"{rig.command()[0]} machine={rig.file}"
    ended = subprocess.run(
        [*ISOLATED, "sh", "-c", script.format(doit=doit)],
        cwd=PROJECT,
        env=rig.environ(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=150,
    )
    return Ended(ended.returncode, ended.stdout)
