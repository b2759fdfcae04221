"""A drain cuts no job: what is answered 200 ends exactly once, and its result can be read."""

from __future__ import annotations

import time
from pathlib import Path

import psutil
import requests

from tests.conftest import MachineMaker
from tests.contract.client import until
from tests.customers import NOTE, customers, ran
from tests.forge import Forge
from tests.instances.test_roll import NEW, WAIT, pids, submit

DETACHED = """
import server
from server import PromptServer

NODE_CLASS_MAPPINGS = {}
ours = [each for each in PromptServer.instance.app.middlewares if each.__name__ == "refuse_jobs"]
PromptServer.instance.app.middlewares.remove(*ours)
"""
"""As with a ComfyUI whose server isn't recognised."""


def test_every_job_that_is_answered_200_ends_once_through_a_rolling_upgrade(
    machine: MachineMaker, forge: Forge, tmp_path: Path
) -> None:
    node = forge.repository("note", {"__init__.py": NOTE})
    rig = machine(custom_nodes=[{"url": node.url}], instances={"gpus": 2})
    rig.doit()
    before, notes = pids(rig), tmp_path / "notes"
    with customers([rig.port(0), rig.port(1)], notes) as two:
        rig.spec["instances"]["args"] = NEW
        rig.doit()
    assert not set(before.values()) & set(pids(rig).values())
    assert [each.lost for each in two] == [[], []]
    assert set(ran(two, notes).values()) == {1}
    refused = [answer for each in two for answer in each.refused]
    assert {answer.status_code for answer in refused} == {503}
    assert all(int(answer.headers["Retry-After"]) > 0 for answer in refused)


def test_only_new_jobs_are_refused_and_the_last_result_stays_readable(
    machine: MachineMaker, forge: Forge, tmp_path: Path
) -> None:
    node = forge.repository("wait", {"__init__.py": WAIT})
    rig = machine(custom_nodes=[{"url": node.url}], instances={"drain_settle": 3})
    rig.doit()
    before, done, url = pids(rig)["comfyui-gpu0"], tmp_path / "done", rig.client().url
    job = submit(rig, done)
    with rig.going("restart") as roll:
        until(rig.layout.draining(0).exists, 60, "the mark")
        for path in ("/prompt", "/api/prompt"):
            answer = requests.post(f"{url}{path}", json={"prompt": {}}, timeout=30)
            assert answer.status_code == 503
            assert int(answer.headers["Retry-After"]) > 0
            assert answer.json()["error"]["type"] == "draining"
            assert requests.get(f"{url}{path}", timeout=30).status_code == 200
        for path in ("/queue", "/history", "/object_info/Wait", "/system_stats"):
            assert requests.get(f"{url}{path}", timeout=30).status_code == 200
        assert requests.post(f"{url}/free", json={}, timeout=30).status_code == 200
        done.touch()
        entry = until(lambda: rig.client().done(job), 30, "the result") or {}
        ended = max(said["timestamp"] for _, said in entry["status"]["messages"]) / 1000
        until(lambda: not psutil.pid_exists(before), 60, "the restart")
        assert time.time() - ended >= 3
        assert roll.wait(60) == 0
    assert rig.client().submit({"1": {"class_type": "Wait", "inputs": {"file": str(done)}}})


def test_an_instance_that_can_not_refuse_is_stopped_after_it_has_been_idle(
    machine: MachineMaker, forge: Forge, tmp_path: Path
) -> None:
    nodes = [forge.repository("note", {"__init__.py": NOTE}),
             forge.repository("detached", {"__init__.py": DETACHED})]  # fmt: skip
    rig = machine(custom_nodes=[{"url": node.url} for node in nodes])
    rig.doit()
    before, notes = pids(rig)["comfyui-gpu0"], tmp_path / "notes"
    inputs = {"text": "late", "file": str(notes)}
    with rig.going("restart") as roll:
        until(rig.layout.draining(0).exists, 60, "the mark")
        marked = rig.layout.draining(0).stat().st_mtime
        rig.client().submit({"1": {"class_type": "Note", "inputs": inputs}})
        until(lambda: not psutil.pid_exists(before), 60, "the restart")
        assert time.time() - marked >= 5, "the default of drain_settle"
        assert roll.wait(60) == 0
    assert notes.read_text() == "late\n"
