"""What the health server says of instances: of those that are well, and of each kind of trouble."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

from comfy_machine.host.comfyui import load_result
from comfy_machine.host.comfyui.load_result import Outcome, Result
from comfy_machine.host.system import files
from tests.contract.installation import WAITING_NODE, node
from tests.services.conftest import SceneMaker
from tests.services.scene import Told, is_well

BAR = """
print(' 35%|###   | 7/20 [00:05<00:09,  1.40it/s]', end='\\r', flush=True)
return (value,)
"""


def test_each_state_of_an_instance_shows_as_exactly_that(scene: SceneMaker) -> None:
    one = scene()
    secret = one.layout.secrets / "comfyui-gpu0-abc.json"
    files.write_text(secret, json.dumps({"TOKEN": "very-secret-indeed"}), mode=0o600)
    one.base().add_node("talks", "print('I use very-secret-indeed')\nNODE_CLASS_MAPPINGS = {}\n")
    one.serve()
    down = one.instance()
    assert (down["status"], down["advice"]) == ("down", "run doit")
    assert down["layers"]["running"] == {
        "ok": False, "reason": "not started", "pid": None, "uptime": None, "restarts": None,
        "memory": None, "before": "",
    }  # fmt: skip

    process = one.start().process
    well = one.until(is_well)
    assert well["layers"]["running"]["pid"] == process.pid
    assert well["layers"]["functional"]["ok"]
    assert well["layers"]["running"]["memory"] > 1e6
    assert well["log"] == [], "nobody needs the log of one that is well"

    process.send_signal(signal.SIGSTOP)
    hung = one.until(lambda told: told["status"] == "unhealthy")
    assert hung["reason"].startswith("it hangs: no answer since")
    assert hung["advice"] == "doit restart comfyui-gpu0"
    assert not hung["layers"]["functional"]["ok"]
    assert hung["since"] >= well["since"]
    assert "I use ***" in hung["log"], "a secret that its log repeats is masked"

    process.send_signal(signal.SIGCONT)
    one.until(is_well)

    mark = one.layout.draining(0)
    mark.touch()
    assert one.until(lambda told: told["status"] == "draining")["reason"] == "it takes no new jobs"
    mark.unlink()
    one.until(is_well)

    files.write_receipt(one.layout.watched(0), {"pid": process.pid, "reason": "it is too large"})
    assert one.until(lambda told: told["status"] == "unhealthy")["reason"] == "it is too large"
    files.remove(one.layout.watched(0))
    one.until(is_well)

    process.kill()
    dead = one.until(lambda told: told["status"] == "down")
    assert dead["layers"]["functional"]["reason"] == "comfyui-gpu0 doesn't run"
    assert dead["log"]

    again = one.start().process
    back = one.until(is_well)
    assert back["layers"]["running"]["pid"] == again.pid
    assert back["since"] > dead["since"]
    assert back["layers"]["running"]["before"].startswith("ended 20"), "a crash leaves a trace"


def test_a_job_is_shown_with_its_step_and_a_dead_worker_thread_as_that(
    scene: SceneMaker, tmp_path: Path
) -> None:
    one = scene()
    one.base().add_node("waits", WAITING_NODE)
    one.base().add_node("ends", node("import sys; sys.exit()", "Ends"))
    one.base().add_node(
        "samples",
        node(BAR, "Bar"),
    )
    one.serve()
    instance = one.start()
    one.until(is_well)
    assert one.instance()["layers"]["functional"]["queue"] == 0

    done = tmp_path / "done"
    job = instance.queue(
        {
            "1": {"class_type": "Bar", "inputs": {"value": 1}},
            "2": {"class_type": "WaitForFile", "inputs": {"path": str(done)}},
        }
    )
    shown = one.until(lambda told: (told["layers"]["functional"]["job"] or {}).get("percent"))
    assert shown["layers"]["functional"]["job"]["id"] == job
    assert shown["layers"]["functional"]["job"]["percent"] == 35
    assert shown["layers"]["functional"]["job"]["step"] == "7/20"
    assert shown["layers"]["functional"]["queue"] == 1
    done.touch()
    instance.result(job)
    one.until(lambda told: told["layers"]["functional"]["job"] is None)

    # The thread that works on jobs ends in one: ComfyUI answers on, as if nothing were wrong.
    dying = instance.queue({"1": {"class_type": "Ends", "inputs": {"value": 1}}})
    dead = one.until(lambda told: told["status"] == "unhealthy")
    assert dead["reason"].startswith(f"its worker thread is dead: job {dying}")
    assert dead["layers"]["running"]["pid"]
    assert instance.answers()


def test_a_node_that_does_not_import_or_lacks_a_class_is_named(scene: SceneMaker) -> None:
    one = scene()
    one.base().add_node("broken", "raise ValueError('no luck')\n")
    one.base().add_node("poor", node("return (1,)", "Here"))
    one.base().add_node("away", "raise ValueError('nobody chose it')\n")
    generation = one.layout.generations / "abc"
    generation.mkdir(parents=True)
    one.layout.state.mkdir(exist_ok=True)
    files.point(one.layout.current, generation)
    given = Result(Outcome.LOADED, classes=("Here", "Gone"))
    load_result.write(generation, {"poor": given, "away": given}, [])
    names = [{"name": name, "url": f"https://localhost/{name}"} for name in ("broken", "poor")]
    one.tell(nodes=names, selected=["broken", "poor"])
    one.serve()
    one.start()
    told = one.until(lambda told: told["layers"]["functional"]["failed_nodes"])
    functional = told["layers"]["functional"]
    assert told["status"] == "unhealthy"
    assert told["reason"] == "custom node broken doesn't import: ValueError: no luck"
    assert functional["failed_nodes"]["broken"] == "doesn't import: ValueError: no luck"
    assert functional["missing_nodes"] == {"poor": ["Gone"]}

    one.tell(nodes=[names[0] | {"optional": True}, names[1]])
    told = one.until(lambda told: "poor" in told["reason"])
    assert told["reason"] == "custom node poor lacks Gone, which it had in the build"
    one.tell(nodes=[each | {"optional": True} for each in names])
    assert one.until(lambda told: told["status"] == "degraded")["layers"]["functional"]["ok"]


def test_a_model_that_is_listed_and_dangles_shows_as_that(
    scene: SceneMaker, tmp_path: Path
) -> None:
    one = scene()
    place = one.base().path / "models" / "checkpoints"
    place.mkdir()
    target = "checkpoints/a.safetensors"
    volume = tmp_path / "volume" / "a.safetensors"
    model = {"target": target, "source": str(volume)}
    (place / "a.safetensors").symlink_to(volume)
    one.tell(models_folder=str(one.base().path / "models"), models=[])
    one.serve()
    one.start()
    assert one.until(is_well)["layers"]["models"]["ok"], "none declared is healthy"

    one.tell(models=[model])
    told = one.until(lambda told: "lists it" in told["layers"]["models"]["reason"])
    assert is_well(told), "it serves what it has"
    assert "the instance lists it all the same" in told["layers"]["models"]["wrong"][target]
    listed = one.told("/health/comfyui/models")
    assert (listed["status"], listed["code"]) == ("degraded", "ModelMissing")
    assert listed["models"][0] | {"reason": ""} == {
        "ok": False, "reason": "", "target": target, "optional": False, "present": False,
        "verified": False, "size": None, "listed": {"0": True},
    }  # fmt: skip

    volume.parent.mkdir()
    volume.write_bytes(b"weights")
    well = one.until(lambda told: told["layers"]["models"]["ok"])
    assert is_well(well)
    assert well["layers"]["models"] == {"ok": True, "reason": "", "wrong": {}}


def test_a_started_instance_is_warmed_and_has_its_canary(scene: SceneMaker, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    one = scene()
    one.base().add_node("waits", WAITING_NODE)
    one.base().add_node("ends", node("import sys; sys.exit()", "Ends"))
    workflow = tmp_path / "warm.json"
    workflow.write_text(
        json.dumps({"1": {"class_type": "WaitForFile", "inputs": {"path": str(gate)}}})
    )
    one.tell(warmup=str(workflow))
    one.serve()
    first = one.start()
    cold = one.until(lambda told: "warm-up" in told["reason"])
    assert cold["status"] == "starting"
    assert cold["reason"] == "its warm-up job has not finished yet"
    gate.touch()
    warm = one.until(is_well)
    assert warm["layers"]["functional"]["warmup"]["ok"]

    one.tell(warmup=None, canary="smoke", canary_every=1)
    proved = one.until(lambda told: told["layers"]["functional"]["canary"])
    assert proved["layers"]["functional"]["canary"]["ok"]
    assert is_well(proved)
    assert first.json("/queue")["queue_pending"] == []


def test_the_settings_are_read_again_when_a_run_has_changed_them(scene: SceneMaker) -> None:
    one = scene(gpus=2)
    both = one.settings["instances"]
    one.tell(instances=both[:1], workers=[])
    one.serve()
    assert one.get("/health/comfyui/instances/1").status_code == 404
    one.tell(instances=both, workers=[{"name": "worker-gpu1", "gpu": 1}])
    told = one.until(lambda told: told.get("workers"), gpu=1)
    assert told["workers"] == [
        {
            "name": "worker-gpu1",
            "running": False,
            "pid": None,
            "waits_for": ["comfyui-gpu1"],
            "reason": "comfyui-gpu1 is down: not started",
        }
    ]
    services = one.told("/health/comfyui")["services"]
    assert [each["name"] for each in services] == ["comfyui-gpu0", "comfyui-gpu1", "worker-gpu1"]
    one.tell(enabled=False, instances=[], workers=[])
    one.wait(lambda: one.get("/health/comfyui").status_code == 200)
    assert one.told("/health/comfyui")["status"] == "disabled"
    # A file that is half written, or that another version wrote, changes nothing.
    one.file.write_text("{")
    one.wait(lambda: "Error" in one.said)
    assert one.told("/health/comfyui")["status"] == "disabled"


def test_others_are_seen_while_one_gives_no_answer(scene: SceneMaker) -> None:
    one = scene(gpus=2)
    one.serve()
    one.start(0)
    one.start(1)
    one.until(is_well, gpu=0)
    one.until(is_well, gpu=1)
    os.kill(one.servers[0].process.pid, signal.SIGSTOP)
    one.until(lambda told: told["status"] == "unhealthy", gpu=0)
    one.servers[1].process.kill()
    one.until(lambda told: told["status"] == "down", gpu=1)
    one.start(1)
    told: Told = one.until(is_well, gpu=1)
    assert told["age"] < one.instance(0)["age"] + 10
    assert one.instance(0)["status"] == "unhealthy"
    every = one.told("/health/comfyui/instances")
    assert every["reason"].startswith("comfyui-gpu0 is unhealthy: it hangs")
