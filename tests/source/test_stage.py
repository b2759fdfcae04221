"""ComfyUI's source: fetched or copied whole, and nobody else's repository is touched."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import MachineMaker
from tests.forge import Forge


def test_a_local_folder_that_is_not_comfyui_is_refused(
    machine: MachineMaker, tmp_path: Path
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    rig = machine(comfyui={"path": str(empty)})
    run = rig.doit("build", code=2)
    assert f"{empty} isn't ComfyUI, it has no main.py: correct comfyui.path" in run.output
    assert list(empty.iterdir()) == []


def test_a_repository_that_is_not_comfyui_is_refused(machine: MachineMaker, forge: Forge) -> None:
    other = forge.repository("other")
    rig = machine(comfyui={"repo": other.url})
    run = rig.doit("build", code=2)
    assert f"{other.url} has no main.py, so it isn't ComfyUI: correct comfyui.repo" in run.output


def test_the_repository_of_a_git_hook_is_left_alone(machine: MachineMaker, forge: Forge) -> None:
    victim = forge.repository("victim")
    before = victim.git("rev-parse", "HEAD")
    rig = machine(custom_nodes=[{"url": forge.node("alpha").url}])
    rig.doit("build", GIT_DIR=str(victim.folder / ".git"), GIT_INDEX_FILE="index")
    assert victim.git("rev-parse", "HEAD") == before
    assert (rig.comfyui / "custom_nodes" / "alpha").is_dir()


def test_a_checkout_that_a_kill_left_half_done_is_made_again(
    machine: MachineMaker, forge: Forge
) -> None:
    rig = machine(custom_nodes=[{"url": forge.node("alpha").url}])
    rig.doit("nodes")
    (checkout,) = rig.layout.sources.glob("alpha@*")
    (checkout / ".git" / "HEAD").write_text("ref: refs/heads/unborn\n")
    rig.doit("build")
    assert (rig.comfyui / "custom_nodes" / "alpha" / "__init__.py").is_file()


def test_submodules_come_along_and_go_when_they_are_not_wanted(
    machine: MachineMaker, forge: Forge
) -> None:
    part = forge.repository("part", {"part.py": "VALUE = 1\n"})
    node = forge.node("alpha")
    node.git("-c", "protocol.file.allow=always", "submodule", "add", "--quiet", part.url, "part")
    node.commit({"after.py": ""})
    gone = forge.node("beta")
    lost = forge.repository("lost")
    gone.git("-c", "protocol.file.allow=always", "submodule", "add", "--quiet", lost.url, "in/it")
    gone.commit({})
    lost.folder.rename(forge.folder / "away")
    rig = machine(custom_nodes=[{"url": node.url}, {"url": gone.url, "optional": True}])
    rig.env["GIT_ALLOW_PROTOCOL"] = "file"
    said = rig.doit("build").output
    assert (rig.comfyui / "custom_nodes" / "alpha" / "part" / "part.py").is_file()
    assert not (rig.comfyui / "custom_nodes" / "beta").exists()
    assert f"left out: submodule in/it of {gone.url}: {lost.url} isn't there" in said
    rig.spec["custom_nodes"] = [{"url": node.url, "recursive": False}]
    rig.doit("build")
    assert not (rig.comfyui / "custom_nodes" / "alpha" / "part" / "part.py").exists()
    assert rig.doit("build").executed == set()


def test_a_damaged_cache_is_made_anew(machine: MachineMaker, forge: Forge) -> None:
    rig = machine(custom_nodes=[{"url": forge.node("alpha").url}])
    rig.doit("nodes")
    (cache,) = Path(rig.env["XDG_CACHE_HOME"]).glob("comfy-machine/git/alpha-*.git")
    (cache / "HEAD").write_text("")
    (cache / "config.lock").write_text("")
    node = forge.node("beta")
    rig.spec["custom_nodes"].append({"url": node.url})
    for checkout in rig.layout.sources.glob("alpha@*"):
        checkout.rename(checkout.with_name("away"))
    rig.doit("build")
    assert (rig.comfyui / "custom_nodes" / "alpha" / "__init__.py").is_file()


def test_a_folder_in_the_place_of_the_flags_is_no_answer(machine: MachineMaker) -> None:
    rig = machine()
    rig.doit("source")
    (flags,) = rig.layout.sources.glob("ComfyUI@*.code.json")
    flags.unlink()
    flags.mkdir()
    assert "source" in rig.doit("source").executed
    assert flags.is_file()
    assert rig.doit("source").executed == set()
