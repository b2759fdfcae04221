"""doit smoke --workflow: a workflow of machine.yaml, through every instance that can run it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.commands.test_json import ask, check
from tests.conftest import MachineMaker
from tests.rig import free_ports

MARK = "Node name for S&R"


def saved(*, lost: bool = False) -> dict[str, Any]:
    """As the page saves it: a bypassed node between two others; `lost`: one of the page alone."""
    image = {"name": "image", "type": "IMAGE"}
    nodes: list[dict[str, Any]] = [
        {"id": 1, "type": "EmptyImage", "widgets_values": [64, 32, 1, 255]},
        {"id": 2, "type": "ImageInvert", "mode": 4, "inputs": [image | {"link": 1}],
         "outputs": [{"type": "IMAGE"}]},
        {"id": 3, "type": "SaveImage", "widgets_values": ["page"],
         "inputs": [{"name": "images", "type": "IMAGE", "link": 2}]},
    ]  # fmt: skip
    if lost:
        nodes[1] |= {"type": "Mixer", "mode": 0}
    for each in nodes:
        each["properties"] = {} if each["type"] == "Mixer" else {MARK: each["type"]}
    return {"nodes": nodes, "links": [[1, 1, 0, 2, 0, "IMAGE"], [2, 2, 0, 3, 0, "IMAGE"]]}


def test_a_workflow_runs_on_every_instance_that_has_what_it_needs(machine: MachineMaker) -> None:
    made = {"width": 64, "height": 32, "batch_size": 1, "color": 255}
    exported = {
        "1": {"class_type": "EmptyImage", "inputs": made},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "api"}},
    }
    loads = {"1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "no.pt"}}}
    rig = machine(
        workflows=["api.json", "page.json", "lost.json", "loads.json"],
        instances={"gpus": 2},
        health={"server": True, "port": free_ports(1)},
    )
    for name, content in {
        "api": exported, "page": saved(), "lost": saved(lost=True), "loads": loads,
    }.items():  # fmt: skip
        (rig.folder / f"{name}.json").write_text(json.dumps(content))
    rig.doit()

    for name in ("api", "page"):
        said = ask(rig, "smoke", f"--workflow={name}")
        check("smoke", said)
        assert said["workflow"] == name
        for gpu in (0, 1):
            row = said["instances"][str(gpu)]
            assert (row["state"], row["reason"]) == ("ran", "")
            (file,) = row["files"]
            assert Path(file).is_relative_to(rig.layout.outputs(gpu))
            assert Path(file).name.startswith(name)
            assert Path(file).read_bytes().startswith(b"\x89PNG")
    again = ask(rig, "smoke", "--workflow=api", "gpu1")
    assert [*again["instances"]] == ["1"]
    assert len([*rig.layout.outputs(1).glob("api*.png")]) == 2, "not from the cache"
    assert len([*rig.layout.outputs(0).glob("api*.png")]) == 1

    assert rig.doit("smoke", "--workflow=lost", "0", code=1).output.startswith(
        "✗ comfyui-gpu0: it can't be sent as the page saved it: only the page knows what node 2 "
        "(Mixer) does; in ComfyUI, export it with Workflow > Export (API)"
    )
    left_out = ask(rig, "smoke", "--workflow=loads", code=1)
    assert {row["state"] for row in left_out["instances"].values()} == {"left out"}
    assert left_out["instances"]["0"]["reason"] == (
        "not sent: node 1 (CheckpointLoaderSimple) names the model no.pt, which it doesn't list"
    )
    assert (
        "no workflow pag; did you mean page; known: api, page, lost, loads"
        in rig.doit("smoke", "--workflow=pag", code=3).output
    )

    status = json.loads(rig.doit("status", "--json").output)
    both = {"comfyui-gpu0": True, "comfyui-gpu1": True}
    assert status["workflows"]["page"] == both
    assert status["workflows"]["loads"] == dict.fromkeys(both, False)
    check("status", status)
    assert status["machine"]["code"] == "WorkflowModelMissing"
    shown = rig.doit("status").output
    assert "\nworkflow page: ready on 2 of 2 instances\n" in shown
    assert (
        "\nworkflow loads: ready on 0 of 2 instances; not on comfyui-gpu0, comfyui-gpu1\n" in shown
    )
