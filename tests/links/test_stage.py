"""Links to models on volumes: made, mended, pruned; nothing of others is touched."""

from __future__ import annotations

import hashlib
import os
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
    assert "the source of checkpoints/one.safetensors is missing" in run.output
    assert "mount it or correct source" in run.output


def test_a_real_file_in_the_way_is_never_replaced(machine: MachineMaker, volume: Path) -> None:
    rig = linked(machine, volume)
    place = rig.workspace / "shared/models/checkpoints/one.safetensors"
    place.parent.mkdir(parents=True)
    place.write_bytes(b"precious")
    run = rig.doit("links", code=2)
    assert "is in the way of a link" in run.output
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
    assert {"links:extra_model_paths", "instances:start"} <= run.executed
    assert "far.safetensors" not in rig.client().get("/models/checkpoints")


def test_a_root_that_is_read_only_gets_no_link_no_download_and_no_folder(
    machine: MachineMaker, volume: Path
) -> None:
    rig = linked(machine, volume)
    root = rig.workspace / "shared" / "models" / "nas"
    root.mkdir(parents=True)
    rig.spec["models"]["extra_roots"] = [{"path": str(root), "read_only": True}]
    (file,) = rig.spec["models"]["files"]
    rig.spec["models"]["files"] = [{**file, "target": "nas/deep/one.safetensors"}]
    run = rig.doit("links:files", code=1)
    assert f"nas/deep/one.safetensors would change {root}, which is read_only" in run.output
    download = {"target": "nas/far.safetensors", "url": "http://127.0.0.1:9/far"}
    rig.spec["models"]["files"] = [download]
    run = rig.doit("models", code=1)
    assert f"nas/far.safetensors would change {root}, which is read_only" in run.output
    assert list(root.iterdir()) == []


def test_a_link_in_a_root_that_became_read_only_is_not_removed(
    machine: MachineMaker, volume: Path
) -> None:
    rig = linked(machine, volume)
    root = rig.workspace / "shared" / "models" / "checkpoints"
    rig.doit("links:files")
    rig.spec["models"] = {"extra_roots": [{"path": str(root), "read_only": True}]}
    assert f"would change {root}, which is read_only" in rig.doit("links:prune", code=1).output
    assert (root / "one.safetensors").is_symlink()


def test_comfyui_s_own_files_are_not_copied_into_a_root_that_is_read_only(
    machine: MachineMaker, volume: Path
) -> None:
    rig = machine(models={"extra_roots": [{"path": str(volume), "read_only": True}]})
    models = rig.workspace / "shared" / "models"
    models.mkdir(parents=True)
    (models / "checkpoints").symlink_to(volume)
    before = set(volume.rglob("*"))
    rig.doit("links:own")
    assert set(volume.rglob("*")) == before
    assert any(models.rglob("put_*_here")), "into the other folders they are"


def test_the_environment_moves_the_models_folder(machine: MachineMaker, tmp_path: Path) -> None:
    rig = machine()
    elsewhere = tmp_path / "models elsewhere"
    (elsewhere / "checkpoints").mkdir(parents=True)
    (elsewhere / "checkpoints" / "moved.safetensors").write_bytes(b"x")
    rig.doit(COMFYUI_MODELS_PATH=str(elsewhere))
    assert "moved.safetensors" in rig.client().get("/models/checkpoints")


def place_of(rig: Rig, target: str = "checkpoints/one.safetensors") -> Path:
    return rig.workspace / "shared/models" / target


@pytest.mark.parametrize("now", ["nowhere", "volume/two.safetensors", "one.safetensors"])
def test_a_link_that_is_wrong_dangling_or_a_loop_is_put_right(
    machine: MachineMaker, volume: Path, tmp_path: Path, now: str
) -> None:
    (volume / "two.safetensors").write_bytes(b"two")
    rig = linked(machine, volume)
    rig.doit("links:files")
    place = place_of(rig)
    place.unlink()
    place.symlink_to(now if now == place.name else tmp_path / now)
    assert rig.doit("links:files").executed == {"links:files"}
    assert place.read_bytes() == b"one"
    assert rig.doit("links:files").executed == set()


def test_a_source_that_is_a_loop_or_the_target_itself_is_refused(
    machine: MachineMaker, volume: Path
) -> None:
    rig = linked(machine, volume)
    source = volume / "one.safetensors"
    source.unlink()
    source.symlink_to(source.name)
    assert "is a broken link" in rig.doit("links:files", code=1).output
    place = place_of(rig)
    place.parent.mkdir(parents=True)
    place.write_bytes(b"precious")
    source.unlink()
    source.symlink_to(place)
    run = rig.doit("links:files", code=1)
    assert "links to the target itself" in run.output
    assert place.read_bytes() == b"precious"


def test_a_target_that_climbs_out_makes_no_folder_there(
    machine: MachineMaker, volume: Path, tmp_path: Path
) -> None:
    rig = linked(machine, volume)
    outside = tmp_path / "outside"
    outside.mkdir()
    rig.spec["models"]["files"][0]["target"] = "checkpoints/deep/one.safetensors"
    (rig.workspace / "shared/models").mkdir(parents=True)
    (rig.workspace / "shared/models/checkpoints").symlink_to(outside)
    rig.doit("links:files", code=1)
    assert list(outside.iterdir()) == []


def test_a_copy_of_the_source_becomes_a_link(machine: MachineMaker, volume: Path) -> None:
    rig = linked(machine, volume)
    place = place_of(rig)
    place.parent.mkdir(parents=True)
    place.write_bytes(b"one")
    run = rig.doit("links:files")
    assert f"{place} was a copy" in run.output
    assert place.is_symlink()


def test_a_source_is_held_to_its_sha256_and_read_again_only_when_it_changed(
    machine: MachineMaker, volume: Path
) -> None:
    rig = linked(machine, volume)
    source = volume / "one.safetensors"
    entry = rig.spec["models"]["files"][0]
    entry["sha256"] = sha256(b"one")
    rig.doit("links:files")
    assert rig.doit("links:files").executed == set()
    assert rig.models()["checkpoints/one.safetensors"].verified
    os.utime(source, (1, 1))
    assert rig.models()["checkpoints/one.safetensors"].reason == "it was not verified as it is now"
    assert rig.doit("links:files").executed == {"links:files"}
    source.write_bytes(b"ONE")
    run = rig.doit("links:files", code=1)
    assert f"has sha256 {sha256(b'ONE')}, not {sha256(b'one')}" in run.output
    assert rig.doit("verify", code=1).output.count("has another sha256 now") == 1


def test_an_optional_source_that_is_missing_is_a_warning_until_it_is_there(
    machine: MachineMaker, volume: Path
) -> None:
    rig = linked(machine, volume)
    source = volume / "one.safetensors"
    source.rename(volume / "away")
    rig.spec["models"]["files"][0]["optional"] = True
    run = rig.doit("links:files")
    assert "! model checkpoints/one.safetensors (optional) is missing" in run.output
    (volume / "away").rename(source)
    assert rig.doit("links:files").executed == {"links:files"}
    assert place_of(rig).read_bytes() == b"one"


def test_a_folder_that_instances_have_listed_is_swapped_while_none_runs(
    machine: MachineMaker, volume: Path
) -> None:
    for name in ("first", "second"):
        (volume / name).mkdir()
        (volume / name / f"{name}.safetensors").write_bytes(b"x")
    rig = machine(models={"files": [{"target": "loras", "source": str(volume / "first")}]})
    rig.doit()
    client, before = rig.client(), rig.running()["comfyui-gpu0"].pid
    assert client.get("/models/loras") == ["first.safetensors"]
    rig.spec["models"]["files"] = [{"target": "loras", "source": str(volume / "second")}]
    restart = {"instances:start", "health:gpu0", "collection"}
    planned = rig.doit("plan")
    assert f"restart comfyui-gpu0 (pid {before})" in planned.output
    assert "which instances use, has a new target" in planned.output
    run = rig.doit()
    assert planned.planned | {"collection"} == run.executed | {"collection"}
    assert run.executed - {"collection"} == restart - {"collection"}
    assert rig.client().get("/models/loras") == ["second.safetensors"]
    assert rig.running()["comfyui-gpu0"].pid != before
    rig.spec["models"]["files"] = []
    assert "instances:start" in rig.doit().executed
    assert not place_of(rig, "loras").exists()
    assert rig.client().get("/models/checkpoints") is not None
    assert rig.doit().executed == set()


def test_a_new_type_of_folder_restarts_instances_and_another_model_in_it_does_not(
    machine: MachineMaker, volume: Path
) -> None:
    rig = linked(machine, volume)
    rig.doit()
    entry = {"target": "ipadapter/one.bin", "source": str(volume / "one.safetensors")}
    rig.spec["models"]["files"].append(entry)
    planned = rig.doit("plan")
    assert "restart comfyui-gpu0" in planned.output
    run = rig.doit()
    assert {"instances:start", "links:extra_model_paths"} <= run.executed
    assert planned.planned - {"collection"} == run.executed - {"collection"}
    assert rig.client().get("/models/ipadapter") == ["one.bin"]
    rig.spec["models"]["files"].append({**entry, "target": "ipadapter/two.bin"})
    assert rig.doit().executed == {"links:files"}
    assert rig.client().get("/models/ipadapter") == ["one.bin", "two.bin"]


def test_a_folder_of_a_further_root_that_comfyui_does_not_know_is_mapped(
    machine: MachineMaker, volume: Path
) -> None:
    for kind in ("insightface", "custom_nodes", ".hidden"):
        (volume / kind).mkdir()
        (volume / kind / "x.onnx").write_bytes(b"x")
    rig = machine(models={"extra_roots": [{"path": str(volume), "read_only": True}]})
    rig.doit()
    assert rig.client().get("/models/insightface") == ["x.onnx"]
    paths = rig.client().get("/internal/folder_paths")
    assert not any(str(volume) in path for path in paths["custom_nodes"])


def test_the_folders_of_another_program_are_seen_under_comfyuis_types(
    machine: MachineMaker, volume: Path
) -> None:
    for name in ("Stable-diffusion/a", "Lora/b", "LyCORIS/c"):
        (volume / "models" / name).parent.mkdir(parents=True)
        (volume / "models" / f"{name}.safetensors").write_bytes(b"x")
    (volume / "vae").mkdir()
    (volume / "vae" / "v.safetensors").write_bytes(b"v")
    folders = {
        "checkpoints": "models/Stable-diffusion",
        "loras": ["models/Lora", "models/LyCORIS"],
    }
    root = {"path": str(volume), "read_only": True, "folders": folders}
    rig = machine(models={"extra_roots": [root]})
    rig.doit()
    assert rig.client().get("/models/checkpoints") == ["a.safetensors"]
    assert rig.client().get("/models/loras") == ["b.safetensors", "c.safetensors"]
    assert rig.client().get("/models/vae") == [], "it isn't named"
    root["folders"] = {"../loras": "x", "loras": "/etc"}
    refused = rig.doit(code=3).output
    assert "'../loras' is no type of models such as checkpoints or loras" in refused
    assert "must be a folder below the root" in refused


def test_an_instance_that_looks_elsewhere_for_models_is_not_healthy(
    machine: MachineMaker, volume: Path, forge: Forge
) -> None:
    code = "import folder_paths\nfolder_paths.folder_names_and_paths['checkpoints'][0].clear()\n"
    node = forge.node("meddler", {"meddle.py": code})
    node.commit({"__init__.py": "from . import meddle\nNODE_CLASS_MAPPINGS = {}\n"})
    rig = linked(machine, volume)
    rig.spec["custom_nodes"] = [{"url": node.url}]
    run = rig.doit(code=2)
    assert f"doesn't look for models in {rig.workspace}/shared/models/checkpoints" in run.output


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
