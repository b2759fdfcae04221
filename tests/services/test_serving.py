"""What serves goes on serving, whatever machine.yaml asks for beside it; the conditions tell."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from comfy_machine.host.system import files
from tests.conftest import MachineMaker
from tests.forge import Forge
from tests.model_server import ModelServer, Ways, model_server, noise
from tests.rig import Rig
from tests.services.test_server import Asker

Told = dict[str, Any]


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with model_server() as server:
        server.content |= {f"/{name}": noise(50_000, n) for n, name in enumerate("ab", 1)}
        yield server


def reasons(told: Told, kind: str) -> list[str]:
    """Why conditions of a type are true."""
    these = [each for each in told["conditions"] if each["type"] == kind]
    return [each["reason"] for each in these if each["status"] == "True"]


def agree(rig: Rig, ask: Asker, code: int = 0) -> Told:
    """What the health server says; /readyz, probe and status say so word for word."""
    assert (ask.code("/readyz"), ask.told("/instances/0")[0]) == (200, 200)
    _, told = ask.told()
    line = "; ".join(filter(None, (told["reason"], told["advice"])))
    line = f"{told['status']}: {line}" if line else told["status"]
    assert rig.doit("probe", code=code).output == f"{line}\n"
    assert rig.doit("probe", "--ready").output == "healthy\n"
    shown = json.loads(rig.doit("status", "--json", code=code).output)["machine"]
    assert (shown["health"], shown["code"]) == (told["status"], told["code"])
    same = ("type", "status", "reason", "message", "since", "observed")
    assert [[each[key] for key in same] for each in shown["conditions"]] == [
        [each[key] for key in same] for each in told["conditions"]
    ]
    assert f"machine: {line}\n" in rig.doit("status", code=code).output
    return told


def test_an_instance_serves_through_all_that_becomes_of_models_and_of_the_lock(
    machine: MachineMaker, forge: Forge, server: ModelServer
) -> None:
    node = forge.node("alpha")
    models = [{"target": "loras/a.pt", "url": f"{server.url}/a"}]
    rig = machine(
        custom_nodes=[{"url": node.url}],
        models={"files": models},
        health={"server": True},
    )
    rig.spec["health"]["port"] = rig.port(2)
    ask = Asker(rig)
    rig.doit()
    ask.until("", lambda told: told["status"] == "healthy")
    pid = rig.running()["comfyui-gpu0"].pid
    first = {each["observed"] for each in agree(rig, ask)["conditions"]}

    # A further model, whose server takes its time.
    sends = threading.Event()
    server.ways["/b"] = Ways(before=lambda _: sends.wait(60))
    models.append({"target": "loras/b.pt", "url": f"{server.url}/b"})
    with rig.going() as run:
        _, told = ask.until("", lambda told: reasons(told, "Progressing"))
        told = agree(rig, ask)
        assert (told["status"], told["code"]) == ("progressing", "ModelMissing")
        assert told["reason"] == "the run brings loras/b.pt"
        assert reasons(told, "Degraded") == []
        assert {each["observed"] for each in told["conditions"]}.isdisjoint(first)
        # Ctrl-C meanwhile
        run.send_signal(signal.SIGINT)
        assert run.wait(60) == 128 + signal.SIGINT
    sends.set()
    _, told = ask.until("", lambda told: "RunInterrupted" in reasons(told, "Degraded"))
    told = agree(rig, ask)
    assert reasons(told, "Degraded") == ["RunInterrupted", "ModelMissing"]

    # The server doesn't have it.
    del server.content["/b"]
    assert rig.doit(code=2).failed == {"models"}
    _, told = ask.until("", lambda told: "RunFailed" in reasons(told, "Degraded"))
    told = agree(rig, ask)
    assert reasons(told, "Degraded") == ["RunFailed", "ModelMissing"]
    assert "404" in told["reason"]

    # It comes: what runs need not have listed it yet for the next run to do nothing.
    server.content["/b"] = noise(50_000, 2)
    assert {"models"} <= rig.doit().executed
    assert rig.doit().executed == set()
    ask.until("", lambda told: told["status"] == "healthy")
    assert ask.told("/models")[1]["models"][1]["listed"] == {"0": True}

    # One is deleted.
    files.remove(rig.workspace / "shared/models/loras/b.pt")
    ask.until("", lambda told: reasons(told, "Degraded"))
    told = agree(rig, ask)
    assert reasons(told, "Degraded") == ["ModelMissing"]
    assert told["reason"].startswith("loras/b.pt: ")
    assert "models" in rig.doit().executed
    ask.until("", lambda told: told["status"] == "healthy")

    # The lock moves on, and is not applied.
    node.commit({"more.py": ""})
    rig.doit("update")
    ask.until("", lambda told: "NotApplied" in reasons(told, "Degraded"))
    ask.until("/models", lambda told: told["code"] == "ModelMissing")
    told = agree(rig, ask)
    assert reasons(told, "Degraded") == ["NotApplied", "ModelMissing"]
    assert "custom node alpha" in told["reason"]
    assert rig.running()["comfyui-gpu0"].pid == pid, "through all of this"


def test_while_one_serves_another_that_does_not_degrades_the_machine(
    machine: MachineMaker,
) -> None:
    rig = machine(instances={"gpus": 2}, health={"server": True})
    rig.spec["health"]["port"] = rig.port(3)
    ask = Asker(rig)
    rig.doit()
    ask.until("", lambda told: told["status"] == "healthy")
    rig.pm2("stop", "comfyui-gpu1")
    # PM2 logs the exit status a moment after the process has ended.
    ask.until("", lambda told: "it exited with code" in told["reason"])
    told = agree(rig, ask)
    assert told["reason"].startswith("comfyui-gpu1 is down")
    assert ask.told("/instances")[1]["reason"] == told["reason"]
    rig.pm2("stop", "comfyui-gpu0")
    ask.until("", lambda told: told["status"] == "unhealthy")
    assert (ask.code("/readyz"), ask.code("/health/comfyui")) == (503, 503)
    assert rig.doit("probe", code=1).output.startswith("unhealthy: comfyui-gpu0 is down")
    shown = json.loads(rig.doit("status", "--json", code=1).output)["machine"]
    assert shown["health"] == "unhealthy"
    assert shown["conditions"][0]["status"] == "False"


def test_a_canary_that_comfyui_refuses_degrades_what_serves(machine: MachineMaker) -> None:
    rig = machine(health={"server": True})
    rig.spec["health"] |= {"port": rig.port(2), "canary_every": 1}
    ask = Asker(rig)
    rig.doit()
    ask.until("", lambda told: told["status"] == "healthy")
    pid = rig.running()["comfyui-gpu0"].pid
    workflow = {"1": {"class_type": "NotBroughtYet", "inputs": {"seed": 1}}}
    (rig.folder / "canary.json").write_text(json.dumps(workflow))
    rig.spec["health"]["canary"] = "canary.json"
    rig.doit()
    ask.until("", lambda told: reasons(told, "Degraded"))
    told = agree(rig, ask)
    assert reasons(told, "Degraded") == ["CanaryRefused"]
    assert "refused the job" in told["reason"]
    assert rig.running()["comfyui-gpu0"].pid == pid
