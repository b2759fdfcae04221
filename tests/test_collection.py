"""Collection: what runs, what is current and what was last good stay; the rest goes."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import MachineMaker
from tests.forge import Forge
from tests.rig import Rig

pytestmark = pytest.mark.afresh


def generations(rig: Rig) -> set[str]:
    return {path.name for path in rig.layout.generations.iterdir() if path.is_dir()}


def test_as_many_good_generations_are_kept_as_machine_yaml_says(
    machine: MachineMaker, forge: Forge
) -> None:
    rig = machine(retention={"generations": 2})
    seen = []
    for name in ("a", "b", "c"):
        rig.spec["custom_nodes"] = [
            {"url": forge.node(name, {"requirements.txt": f"toml=={version}"}).url}
            for version in ["0.10.2"]
        ]
        rig.doit()
        seen.append(rig.comfyui.parent.name)
    assert generations(rig) == set(seen[1:])
    sources = {path.name.split("@")[0] for path in rig.layout.sources.iterdir()}
    assert sources == {"ComfyUI", "b", "c"}
    assert len([path for path in rig.layout.environments.iterdir() if path.is_dir()]) == 1


def test_what_some_process_works_in_is_kept(machine: MachineMaker, forge: Forge) -> None:
    rig = machine(retention={"generations": 1})
    rig.doit()
    first = rig.comfyui.parent.name
    with subprocess.Popen(
        [sys.executable, "-c", "input()"], cwd=rig.comfyui, stdin=subprocess.PIPE
    ) as shell:
        rig.spec["custom_nodes"] = [{"url": forge.node("a").url}]
        rig.doit()
        assert first in generations(rig)
        shell.kill()
    rig.doit()
    assert first not in generations(rig)


def test_clean_never_touches_what_runs_nor_what_people_made(
    machine: MachineMaker, forge: Forge
) -> None:
    rig = machine(custom_nodes=[{"url": forge.node("alpha").url}])
    rig.doit()
    output = rig.layout.outputs(0) / "image.png"
    output.write_text("art")
    model = rig.workspace / "shared" / "models" / "mine.safetensors"
    model.write_text("weights")
    rig.doit("clean")
    assert rig.healthy()
    assert output.exists()
    assert model.exists()
    assert rig.comfyui.is_dir()
    assert (rig.layout.instance(0) / "user").is_dir()
    pid = rig.running()["comfyui-gpu0"].pid
    rig.doit()
    assert rig.running()["comfyui-gpu0"].pid == pid


def test_clean_leaves_what_instances_start_on_with_what_was_written_into_it(
    machine: MachineMaker, forge: Forge
) -> None:
    rig = machine(custom_nodes=[{"url": forge.node("alpha", {"requirements.txt": "toml"}).url}])
    rig.doit()
    rig.spec["custom_nodes"] = [{"url": forge.node("beta").url}]
    rig.doit()
    assert len(generations(rig)) == 2
    written = rig.comfyui / "custom_nodes" / "beta" / "settings.json"
    written.write_text("mine")
    rig.doit("down")
    foretold = rig.doit("clean", "-n").output.replace("would remove", "removed")
    assert rig.doit("clean").output == foretold
    assert "nothing to remove" in rig.doit("clean").output
    assert generations(rig) == {rig.comfyui.parent.name}
    environments = [path for path in rig.layout.environments.iterdir() if path.is_dir()]
    assert environments == [rig.environment]
    assert not list(rig.layout.sources.glob("*"))
    assert not list(rig.layout.supervisor.glob("*"))
    assert written.read_text() == "mine"
    assert (rig.layout.instance(0) / "user").is_dir()
    assert (rig.workspace / "shared" / "models").is_dir()
    rig.doit()
    assert rig.healthy()
