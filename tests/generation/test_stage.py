"""Generations: assembled beside what runs, complete, carrying over what was written."""

from __future__ import annotations

import os

import pytest

from tests.conftest import MachineMaker
from tests.forge import Forge, Repository
from tests.rig import SIMULATOR, snapshot

pytestmark = pytest.mark.afresh


def test_no_file_changes_under_what_runs_while_everything_is_upgraded(
    machine: MachineMaker, forge: Forge
) -> None:
    node = forge.node("alpha", {"requirements.txt": "packaging==24.0"})
    rig = machine(custom_nodes=[{"url": node.url}])
    rig.doit("build")
    generation, environment = rig.comfyui.parent, rig.environment
    before = snapshot(generation), snapshot(environment)
    node.commit({"requirements.txt": "packaging==24.1", "more.py": ""}, tag="v2")
    rig.spec["custom_nodes"] = [{"url": node.url, "ref": "v2"}, {"url": forge.node("beta").url}]
    rig.doit("build")
    assert rig.comfyui.parent != generation
    assert (snapshot(generation), snapshot(environment)) == before


def test_going_back_to_an_earlier_spec_reuses_its_generation(
    machine: MachineMaker, forge: Forge
) -> None:
    rig = machine()
    rig.doit("build")
    first = rig.comfyui
    rig.spec["custom_nodes"] = [{"url": forge.node("alpha").url}]
    rig.doit("build")
    assert rig.comfyui != first
    rig.spec["custom_nodes"] = []
    rig.doit("build")
    assert rig.comfyui == first


def test_an_earlier_generation_of_which_a_file_changed_is_not_used_again(
    machine: MachineMaker, forge: Forge
) -> None:
    rig = machine()
    rig.doit("build")
    first = rig.comfyui
    content = (first / "main.py").read_bytes()
    rig.spec["custom_nodes"] = [{"url": forge.node("alpha").url}]
    rig.doit("build")
    (first / "main.py").write_bytes(bytes(len(content)))
    rig.spec["custom_nodes"] = []
    rig.doit("build")
    assert rig.comfyui.parent.name == f"{first.parent.name}.2"
    assert (rig.comfyui / "main.py").read_bytes() == content


def test_what_comfyui_and_nodes_wrote_is_carried_over(machine: MachineMaker, forge: Forge) -> None:
    node = forge.node("alpha", {".gitignore": "cache/\n"})
    rig = machine(custom_nodes=[{"url": node.url}])
    rig.doit("build")
    custom = rig.comfyui / "custom_nodes"
    (custom / "alpha" / "cache").mkdir()
    (custom / "alpha" / "cache" / "weights.bin").write_text("big")
    (custom / "alpha" / "settings.json").write_text("{}")
    (custom / "alpha" / ".env").write_text("SECRET=1")
    (rig.comfyui / "styles.csv").write_text("style")
    (custom / "by_hand").mkdir()
    (custom / "by_hand" / "__init__.py").write_text("NODE_CLASS_MAPPINGS = {}")
    node.commit({"more.py": ""}, tag="v2")
    rig.spec["custom_nodes"][0]["ref"] = "v2"
    rig.doit("build")
    moved = rig.comfyui / "custom_nodes"
    assert moved != custom
    assert (moved / "alpha" / "more.py").is_file()
    assert (moved / "alpha" / "cache" / "weights.bin").read_text() == "big"
    assert (moved / "alpha" / "settings.json").is_file()
    assert not (moved / "alpha" / ".env").exists()
    assert (rig.comfyui / "styles.csv").is_file()
    assert (moved / "by_hand" / "__init__.py").is_file()


def test_a_removed_nodes_own_files_are_kept_aside(machine: MachineMaker, forge: Forge) -> None:
    rig = machine(custom_nodes=[{"url": forge.node("alpha").url}])
    rig.doit("build")
    (rig.comfyui / "custom_nodes" / "alpha" / "notes.txt").write_text("mine")
    rig.spec["custom_nodes"] = []
    rig.doit("build")
    assert not (rig.comfyui / "custom_nodes" / "alpha").exists()
    assert (rig.layout.left / "alpha" / "notes.txt").read_text() == "mine"


def test_a_tracked_file_edited_by_hand_warns_and_then_stops_the_move(
    machine: MachineMaker, forge: Forge
) -> None:
    node = forge.node("alpha")
    rig = machine(custom_nodes=[{"url": node.url}])
    rig.doit("build")
    edited = rig.comfyui / "custom_nodes" / "alpha" / "__init__.py"
    edited.write_text(edited.read_text() + "# mine\n")
    run = rig.doit("build")
    assert run.executed == set()
    assert f"! __init__.py in {edited.parent} was edited by hand" in run.output
    node.commit({"more.py": ""}, tag="v2")
    rig.spec["custom_nodes"][0]["ref"] = "v2"
    stopped = rig.doit("build", code=2)
    assert stopped.failed == {"generation:assemble"}
    assert f"git -C {edited.parent} checkout -- __init__.py" in stopped.output
    assert "# mine" in edited.read_text()
    original = Repository(edited.parent).git("rev-parse", "HEAD:__init__.py")
    (edited.parent / ".git" / "objects" / original[:2] / original[2:]).unlink()
    kept = rig.layout.left / "ComfyUI" / "custom_nodes" / "alpha" / "__init__.py"
    assert f"its repository is damaged: kept as {kept}" in rig.doit("build").output
    assert "# mine" in kept.read_text()
    assert (rig.comfyui / "custom_nodes" / "alpha" / "more.py").exists()


def test_a_touched_but_equal_file_is_no_edit(machine: MachineMaker) -> None:
    rig = machine()
    rig.doit("build")
    os.utime(rig.comfyui / "main.py")
    assert "edited" not in rig.doit("build").output


def test_a_local_comfyui_is_copied_and_never_written_into(machine: MachineMaker) -> None:
    before = snapshot(SIMULATOR)
    rig = machine()
    rig.doit("build")
    assert snapshot(SIMULATOR) == before
    assert not (rig.comfyui / "main.py").samefile(SIMULATOR / "main.py")


@pytest.mark.parametrize("instead", ["nothing", "a folder"])
def test_a_missing_tracked_file_is_damage_and_a_new_generation_is_made(
    machine: MachineMaker, instead: str
) -> None:
    rig = machine()
    rig.doit("build")
    damaged = rig.comfyui
    (damaged / "server.py").unlink()
    if instead == "a folder":
        (damaged / "server.py").mkdir()
        (damaged / "server.py" / "note.txt").touch()
    rig.doit("build")
    assert rig.comfyui != damaged
    assert (rig.comfyui / "server.py").is_file()
    assert not (damaged / "server.py").is_file()


def test_models_written_into_comfyui_outlive_the_generation(
    machine: MachineMaker, forge: Forge
) -> None:
    rig = machine()
    rig.doit("build")
    (rig.comfyui / "models" / "downloaded").mkdir()
    (rig.comfyui / "models" / "downloaded" / "x.pth").write_text("x")
    rig.spec["custom_nodes"] = [{"url": forge.node("alpha").url}]
    rig.doit("build")
    assert (rig.comfyui / "models" / "downloaded" / "x.pth").read_text() == "x"
    assert (rig.workspace / "shared" / "models" / "downloaded" / "x.pth").is_file()


def test_a_node_named_like_a_folder_that_comfyui_tracks_settles(
    machine: MachineMaker, forge: Forge
) -> None:
    files: dict[str, str | None] = {
        str(path.relative_to(SIMULATOR)): path.read_text()
        for path in SIMULATOR.rglob("*")
        if path.is_file() and path.suffix in (".py", ".txt", ".example")
    }
    comfyui = forge.repository("ComfyUI", {**files, "custom_nodes/foo/extra.py": "1\n"})
    rig = machine(comfyui={"repo": comfyui.url}, custom_nodes=[{"url": forge.node("foo").url}])
    rig.doit("build")
    assert rig.doit("build").executed == set()


def test_receipts_of_the_wrong_shape_are_done_again(machine: MachineMaker, forge: Forge) -> None:
    rig = machine(custom_nodes=[{"url": forge.node("alpha", {"install.py": ""}).url}])
    rig.doit("build")
    receipts = sorted(rig.layout.machine.glob("*/*.json"))
    odd, deep = '{"digest": "x", "heads": 5, "nodes": 5}', "[" * 100_000
    for damaged, content in (*(([receipt], odd) for receipt in receipts), (receipts, deep)):
        for receipt in damaged:
            receipt.write_text(content)
        run = rig.doit("build", code=None)
        assert run.code == 0, f"{receipt.name} {content[:20]}: {run.output}"
        assert "Traceback" not in run.output
    assert rig.doit("build").executed == set()
