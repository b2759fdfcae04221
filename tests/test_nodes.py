"""Custom nodes: fetched at their commits, and honest when that fails."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import MachineMaker
from tests.forge import Forge


def test_a_repository_that_is_not_there_is_named_and_the_other_clones_finish(
    machine: MachineMaker, forge: Forge, tmp_path: Path
) -> None:
    gone = (tmp_path / "gone").as_uri()
    rig = machine(custom_nodes=[{"url": gone}, {"url": forge.node("alpha").url}])
    run = rig.doit(code=2)
    assert run.failed == {"nodes:gone"}
    assert f"{gone} isn't there: correct the url" in run.output
    assert {"nodes:alpha", "source"} <= run.executed
    assert not run.executed & {"environment", "instances:start"}
    assert "Traceback" not in run.output


def test_a_ref_that_is_not_there_is_named(machine: MachineMaker, forge: Forge) -> None:
    node = forge.node("alpha")
    rig = machine(custom_nodes=[{"url": node.url, "ref": "v9"}])
    run = rig.doit("build", code=2)
    assert f"{node.url} has no branch, tag or commit 'v9': correct ref" in run.output


def test_an_optional_node_that_cannot_be_fetched_is_a_warning_and_tried_again(
    machine: MachineMaker, forge: Forge, tmp_path: Path
) -> None:
    url = (forge.folder / "late").as_uri()
    rig = machine(custom_nodes=[{"url": url, "optional": True}])
    assert "! custom node late (optional) is left out" in rig.doit("build").output
    assert not (rig.comfyui / "custom_nodes" / "late").exists()
    forge.node("late")
    rig.doit("build")
    assert (rig.comfyui / "custom_nodes" / "late").is_dir()


def test_a_local_node_is_linked_so_that_edits_show(machine: MachineMaker, forge: Forge) -> None:
    node = forge.node("mine")
    rig = machine(custom_nodes=[{"path": str(node.folder)}])
    rig.doit("build")
    assert (rig.comfyui / "custom_nodes" / "mine").resolve() == node.folder


def test_a_branch_stays_at_its_first_commit_until_its_entry_changes(
    machine: MachineMaker, forge: Forge
) -> None:
    node = forge.node("alpha")
    rig = machine(custom_nodes=[{"url": node.url, "ref": "main"}])
    rig.doit("build")
    node.commit({"new.py": ""})
    assert rig.doit("build").executed == set()
    assert not (rig.comfyui / "custom_nodes" / "alpha" / "new.py").exists()


def test_a_large_file_that_is_only_a_pointer_is_told_at_once_and_where_it_is_missed(
    machine: MachineMaker, forge: Forge
) -> None:
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 3500000\n"
    files: dict[str, str | None] = {"net.pkl": pointer, ".gitattributes": "*.pkl filter=lfs\n"}
    loads = (
        "import pathlib, pickle\n"
        "pickle.load((pathlib.Path(__file__).parent / 'net.pkl').open('rb'))\n"
    )
    fine = forge.node("fine", files)
    needs = forge.repository("needs", {"__init__.py": loads, **files})
    # As git-lfs leaves the user's settings, which is then removed.
    config = forge.folder / "gitconfig"
    config.write_text('[filter "lfs"]\n process = git-lfs filter-process\n required = true\n')
    rig = machine(custom_nodes=[{"url": fine.url}, {"url": needs.url}])
    rig.env["GIT_CONFIG_GLOBAL"] = str(config)
    run = rig.doit("build", code=2)
    told = "1 file is a Git LFS pointer only, 3.5 MB are missing: net.pkl"
    assert f"! fine: {told}; git-lfs isn't installed: apt install git-lfs" in run.output
    assert "custom node needs doesn't import: UnpicklingError" in run.output
    assert f"; {told}" in run.output.partition("UnpicklingError")[2]
    assert "custom node fine" not in run.output


def test_half_a_head_is_damage_and_no_edit(machine: MachineMaker, forge: Forge) -> None:
    rig = machine(custom_nodes=[{"url": forge.node("alpha").url}])
    rig.doit("nodes")
    (source,) = rig.layout.sources.glob("alpha@*/")
    head = source / ".git" / "HEAD"
    whole = head.read_text()
    head.write_text(whole[:20])
    rig.doit("nodes")
    (source,) = rig.layout.sources.glob("alpha@*/")
    assert (source / ".git" / "HEAD").read_text() == whole
