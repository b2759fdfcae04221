"""Links to models on volumes: made, mended, pruned; nothing of others is touched."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import MachineMaker
from tests.forge import Forge
from tests.rig import Rig


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    folder = tmp_path / "volume"
    folder.mkdir()
    (folder / "one.safetensors").write_bytes(b"one")
    return folder


def linked(machine: MachineMaker, volume: Path) -> Rig:
    files = [{"target": "checkpoints/one.safetensors", "source": str(volume / "one.safetensors")}]
    return machine(models={"files": files})


def test_a_source_that_is_not_there_is_named(machine: MachineMaker, volume: Path) -> None:
    rig = linked(machine, volume)
    (volume / "one.safetensors").unlink()
    run = rig.doit("links", code=2)
    assert "the source of checkpoints/one.safetensors isn't there" in run.output
    assert "mount it or correct source" in run.output


def test_a_real_file_in_the_way_is_never_replaced(machine: MachineMaker, volume: Path) -> None:
    rig = linked(machine, volume)
    place = rig.workspace / "shared/models/checkpoints/one.safetensors"
    place.parent.mkdir(parents=True)
    place.write_bytes(b"precious")
    run = rig.doit("links", code=2)
    assert "is in the way: move it aside" in run.output
    assert place.read_bytes() == b"precious"


def test_a_target_does_not_climb_out_through_a_link(
    machine: MachineMaker, volume: Path, tmp_path: Path
) -> None:
    rig = linked(machine, volume)
    (rig.workspace / "shared/models").mkdir(parents=True)
    (rig.workspace / "shared/models/checkpoints").symlink_to(tmp_path)
    run = rig.doit("links", code=2)
    assert "leaves the models folder through a link" in run.output
    assert not (tmp_path / "one.safetensors").exists()


def test_a_link_that_somebody_else_made_is_not_pruned(machine: MachineMaker, volume: Path) -> None:
    rig = linked(machine, volume)
    rig.doit("links")
    ours = rig.workspace / "shared/models/checkpoints/one.safetensors"
    theirs = ours.with_name("two.safetensors")
    theirs.symlink_to(volume / "one.safetensors")
    rig.spec["models"]["files"] = []
    rig.doit("links")
    assert not ours.is_symlink()
    assert theirs.is_symlink()
    assert (volume / "one.safetensors").read_bytes() == b"one"


def test_comfyuis_own_model_files_are_copied_once(machine: MachineMaker) -> None:
    rig = machine()
    rig.doit("links")
    put_here = next((rig.workspace / "shared/models").rglob("put_*here*"))
    put_here.unlink()
    assert rig.doit("links").executed == set()
    assert not put_here.exists()


def test_further_roots_are_seen_by_the_instance(
    machine: MachineMaker, volume: Path, forge: Forge
) -> None:
    (volume / "checkpoints").mkdir()
    (volume / "checkpoints" / "far.safetensors").write_bytes(b"far")
    rig = linked(machine, volume)
    rig.spec["models"]["extra_roots"] = [{"path": str(volume), "read_only": True}]
    rig.doit()
    seen = rig.client().get("/models/checkpoints")
    assert {"far.safetensors", "one.safetensors"} <= set(seen)
    rig.spec["models"]["extra_roots"] = []
    run = rig.doit()
    assert {"links:extra_model_paths", "instances:gpu0"} <= run.executed
    assert "far.safetensors" not in rig.client().get("/models/checkpoints")


def test_the_environment_moves_the_models_folder(machine: MachineMaker, tmp_path: Path) -> None:
    rig = machine()
    elsewhere = tmp_path / "models elsewhere"
    (elsewhere / "checkpoints").mkdir(parents=True)
    (elsewhere / "checkpoints" / "moved.safetensors").write_bytes(b"x")
    rig.doit(COMFYUI_MODELS_PATH=str(elsewhere))
    assert "moved.safetensors" in rig.client().get("/models/checkpoints")
