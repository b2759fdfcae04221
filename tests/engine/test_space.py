"""Going back to what was good is a restart in turns, and nothing else."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from comfy_machine.engine.run import Run
from comfy_machine.engine.space import reserve
from comfy_machine.host.storage import digest_folders, garbage
from comfy_machine.host.system import locks
from comfy_machine.host.system.failure import Failure
from comfy_machine.spec import load
from tests.conftest import MachineMaker
from tests.contract.client import until
from tests.forge import Forge, Repository
from tests.rig import SIMULATOR, Rig, snapshot
from tests.wheels import wheel

CHOSEN = {"source", "lock", "environment", "generation:assemble", "validation", "links:own"}
"""Steps that find what they would make."""
RESTARTED = {"pm2:gpu0", "instances:start", "health:gpu0", "collection"}


@pytest.fixture
def comfyui(forge: Forge, tmp_path: Path) -> Repository:
    """At a it asks for any colour, at b for the newest, which nobody had when a was locked."""
    comfyui = forge.copy("ComfyUI", SIMULATOR)
    for tag, wanted in (("a", "colour"), ("b", "colour>=2")):
        text = (SIMULATOR / "requirements.txt").read_text()
        comfyui.commit({"requirements.txt": f"{text}{wanted}\n"}, tag=tag)
    wheel(tmp_path / "wheels", "colour", "1.0")
    return comfyui


def receipts(rig: Rig) -> dict[str, str]:
    """All that lies beside generations and environments."""
    layout = rig.layout
    files = [*layout.generations.glob("*.json"), *layout.environments.glob("*.json")]
    return {path.name: path.read_text() for path in files}


def test_going_back_to_the_comfyui_of_an_hour_ago_is_a_restart(
    machine: MachineMaker, forge: Forge, comfyui: Repository, tmp_path: Path
) -> None:
    node = forge.node("alpha", {"install.py": "open('ran', 'a').write('once\\n')"})
    rig = machine(
        comfyui={"repo": comfyui.url, "ref": "a"},
        custom_nodes=[{"url": node.url}],
        python={"torch": "none", "find_links": [str(tmp_path / "wheels")]},
    )
    rig.doit()
    old, packages = rig.layout.current.resolve(), rig.packages()
    assert packages["colour"] == "1.0"
    before, known = snapshot(old) | snapshot(rig.environment), receipts(rig)

    wheel(tmp_path / "wheels", "colour", "2.0")
    rig.spec["comfyui"]["ref"] = "b"
    rig.doit()
    assert rig.packages()["colour"] == "2.0"
    (rig.comfyui / "custom_nodes" / "alpha" / "settings.json").write_text("of now")
    # What has to be fetched would come here again.
    shutil.rmtree(tmp_path / "cache" / "comfy-machine")
    rig.spec["comfyui"]["ref"] = "a"
    run = rig.doit()
    assert run.executed == CHOSEN | RESTARTED
    assert rig.layout.current.resolve() == old
    assert rig.packages() == packages, "of these the resolve alone would keep the newer"
    assert comfyui.git("rev-parse", "a") in rig.lock_file.read_text()
    after = snapshot(old) | snapshot(rig.environment)
    assert {path: after[path] for path in before} == before, "nothing was made or installed anew"
    assert {name: receipts(rig)[name] for name in known} == known, "nor was it proved"
    for task in ("lock", "environment", "validation"):
        assert rig.layout.log(task).read_text() == ""
    assert not (tmp_path / "cache" / "comfy-machine").exists()
    settings = rig.comfyui / "custom_nodes" / "alpha" / "settings.json"
    assert settings.read_text() == "of now", "what was written since comes along"
    assert rig.doit().executed == set()

    until(lambda: not garbage.at_work(rig.layout), 20, "the disk to be measured")
    shown = json.loads(rig.doit("status", "--json").output)["disk"]
    newer = next(p.name for p in digest_folders.list_folders(rig.layout.generations) if p != old)
    assert shown["good"] == [newer, old.name]
    assert shown["used"] > shown["oldest_frees"] > 100_000
    assert "2 good generations kept, the oldest takes " in rig.doit("status").output


def test_what_goes_is_deleted_by_nobody_who_is_waited_for(
    machine: MachineMaker, forge: Forge
) -> None:
    rig = machine(retention={"generations": 1})
    rig.doit()
    old = rig.layout.current.resolve()
    until(lambda: not garbage.at_work(rig.layout), 20, "the disk to be measured")
    with locks.exclusive(rig.layout.state / "garbage.lock"):
        rig.spec["custom_nodes"] = [{"url": forge.node("alpha").url}]
        rig.doit()
        assert not old.exists()
        assert garbage.entries(rig.layout), "the run deleted nothing itself"
        assert rig.doit().executed == set(), "somebody is at it"
    assert rig.doit().executed == {"collection"}, "whoever was at it is dead"
    until(lambda: not garbage.entries(rig.layout), 20, "all to be deleted")
    assert rig.doit().executed == set()


def test_a_volume_that_is_full_is_told_with_what_is_needed(tmp_path: Path) -> None:
    file = tmp_path / "machine.yaml"
    file.write_text("workspace: ws\ncomfyui: {}\n")
    machine = load(file, {})
    machine.layout.machine.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(machine.layout.machine)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    folder = machine.layout.environments / "digest"

    def make(error: Exception | None = None) -> None:
        with reserve(Run(machine), "the environment", folder, 5_000_000):
            if error:
                raise error
            folder.mkdir(parents=True)
            (folder / "file").write_bytes(b"x" * 5_000_000)

    try:
        with pytest.raises(Failure, match=r"^the environment needs about 5.0 MB, 0 B free on "):
            make()
        assert not folder.exists()
        with pytest.raises(
            Failure, match=r"^no index; the environment needs .* [12].\d MB free on "
        ):
            make(Failure("no index"))
    finally:
        subprocess.run(["umount", machine.layout.machine], check=True)
