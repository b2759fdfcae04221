"""`workflows`: what they need is proved in the build, and what is missing is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.conftest import MachineMaker
from tests.forge import Forge
from tests.rig import Rig


def node(number: int, kind: str, marked: bool = True, **more: Any) -> dict[str, Any]:
    about = {"Node name for S&R": kind} if marked else {}
    ends = {"inputs": [{"name": "x", "type": "*", "link": 1}]}
    return {"id": number, "type": kind, "properties": about, **ends, **more}


def save(rig: Rig, name: str, *nodes: dict[str, Any]) -> Path:
    """A workflow as the page saves it."""
    file = rig.folder / name
    file.write_text(json.dumps({"nodes": [*nodes], "links": []}))
    return file


def test_a_class_that_is_missing_fails_the_run_and_what_runs_stays(
    machine: MachineMaker, forge: Forge
) -> None:
    old = forge.node("old")
    rig = machine(custom_nodes=[{"url": old.url}], workflows=["portrait.json"])
    save(rig, "portrait.json", node(1, "EmptyImage"), node(2, "Old"))
    rig.doit("build")
    before = rig.layout.current.resolve()
    assert rig.doit("build").executed == set()
    rig.spec["custom_nodes"] = []
    said = rig.doit("build", code=2)
    assert said.failed == {"validation"}
    assert "workflow portrait: node 2 is of class Old, which isn't here" in said.output
    assert rig.layout.current.resolve() == before
    rig.spec["workflows"] = [{"path": "portrait.json", "optional": True}]
    said = rig.doit("build")
    assert "! workflow portrait: node 2 is of class Old, which isn't here" in said.output
    assert rig.layout.current.resolve() != before


def test_the_custom_node_that_failed_and_would_have_the_class_is_named(
    machine: MachineMaker, forge: Forge
) -> None:
    one, two = forge.node("one"), forge.node("two")
    rig = machine(
        custom_nodes=[{"url": each.url, "optional": True} for each in (one, two)],
        workflows=["a.json"],
    )
    marks = {"cnr_id": "package-two"}
    save(rig, "a.json", node(1, "One"), node(2, "Two") | {"properties": marks})
    rig.doit("build")
    one.commit({"__init__.py": "1/0\n"}, tag="worse")
    two.commit({"__init__.py": "1/0\n", "pyproject.toml": '[project]\nname = "package-two"\n'},
               tag="worse")  # fmt: skip
    for entry in rig.spec["custom_nodes"]:
        entry["ref"] = "worse"
    said = rig.doit("build", code=2).output
    why = "doesn't import: ZeroDivisionError: division by zero"
    assert f"node 1 is of class One, which isn't here: custom node one {why}" in said
    assert f"node 2 is of class Two, which isn't here: custom node two {why}" in said


def test_what_only_the_page_has_is_not_missed(machine: MachineMaker, forge: Forge) -> None:
    script = 'LiteGraph.registerNodeType("SetNode", Set)\n'
    pack = forge.node("pack", {"js/set.js": script})
    pack.commit({"__init__.py": "WEB_DIRECTORY = './js'\nNODE_CLASS_MAPPINGS = {}\n"})
    rig = machine(custom_nodes=[{"url": pack.url}], workflows=["a.json"])
    save(
        rig, "a.json", node(1, "EmptyImage"), node(2, "SetNode", marked=False),
        node(3, "Note"), node(4, "Gone", mode=4), node(5, "Label", marked=False) | {"inputs": []},
    )  # fmt: skip
    assert "workflow a" not in rig.doit("build").output
    save(rig, "a.json", node(1, "EmptyImage"), node(2, "GetNode", marked=False))
    said = rig.doit("build").output
    assert (
        "! workflow a: node 2 is of class GetNode, which isn't here; whether only ComfyUI's page "
        "needs it isn't known"
    ) in said


def test_models_that_no_folder_has_are_a_warning_with_their_node(machine: MachineMaker) -> None:
    rig = machine(workflows=["a.json"])
    loader = {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "XL\\a.safetensors"}}
    saved = {"class_type": "SaveImage", "inputs": {"filename_prefix": "not-a-model.bin"}}
    (rig.folder / "a.json").write_text(json.dumps({"7": loader, "8": saved}))
    told = (
        "! workflow a: node 7 (CheckpointLoaderSimple) names the model XL/a.safetensors, which is "
        "in no folder of models: its jobs would fail"
    )
    said = rig.doit("build").output
    assert told in said
    assert "not-a-model" not in said
    model = rig.workspace / "shared" / "models" / "checkpoints" / "XL" / "a.safetensors"
    model.parent.mkdir(parents=True, exist_ok=True)
    model.write_bytes(b"x")
    assert told not in rig.doit("build").output
