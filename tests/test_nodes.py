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
