"""What the health server says of workflows."""

from __future__ import annotations

import requests

from tests.services.conftest import SceneMaker
from tests.services.scene import Told, is_well


def test_what_an_instance_lacks_of_a_workflow_degrades_it_until_it_is_there(
    scene: SceneMaker,
) -> None:
    model = {"node": "4", "kind": "CheckpointLoaderSimple", "input": "ckpt_name", "name": "x/a.pt"}
    fine = {"name": "fine", "classes": {"EmptyImage": "1"}, "models": [], "optional": False}
    loads = {"name": "loads", "classes": {model["kind"]: "4"}, "models": [model], "optional": False}
    gone = {"name": "gone", "classes": {"Gone": "7"}, "models": [], "optional": True}
    one = scene()
    one.tell(workflows=[fine, loads, gone])
    one.serve()
    one.start()

    def lacks(told: Told) -> dict[str, bool | None]:
        return {each["name"]: each["ok"] for each in told["workflows"]}

    told = one.until(lambda told: lacks(told) == {"fine": True, "loads": False, "gone": False})
    assert told["status"] == "degraded", "it takes jobs"
    assert told["layers"]["functional"]["ok"]
    ready = next(each for each in told["conditions"] if each["type"] == "WorkflowsReady")
    assert (ready["status"], ready["reason"]) == ("False", "WorkflowModelMissing")
    assert ready["message"] == (
        "workflow loads: node 4 (CheckpointLoaderSimple) names the model x/a.pt, which it doesn't "
        "list"
    )
    assert told["workflows"][2] == {
        "name": "gone", "ok": False, "optional": True,
        "reason": "node 7 is of class Gone, which it lacks",
        "missing_classes": {"Gone": "7"}, "missing_models": {},
    }  # fmt: skip
    scraped = requests.get(f"{one.url}/metrics", timeout=30).text
    assert 'comfy_machine_workflow_ready{gpu="0",workflow="fine"} 1.0' in scraped
    assert 'comfy_machine_workflow_ready{gpu="0",workflow="loads"} 0.0' in scraped

    place = one.base().path / "models" / "checkpoints" / "x"
    place.mkdir(parents=True)
    (place / "a.pt").write_bytes(b"weights")
    one.tell(workflows=[fine, loads])
    assert lacks(one.until(is_well)) == {"fine": True, "loads": True}
