"""Jobs of our own, and how an instance takes them."""

from __future__ import annotations

import copy
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from comfy_machine.host.comfyui import api, own_jobs
from comfy_machine.host.system.failure import Failure
from comfy_machine.spec.model import SMOKE
from comfy_machine.spec.workflow_file import Prompt
from tests.contract.client import until
from tests.contract.installation import Server

PROMPT: Prompt = {
    "1": {
        "class_type": "KSampler",
        "inputs": {"seed": 5, "noise_seed": 6, "color": 7, "steps": 8, "model": ["2", 0]},
        "_meta": {"title": "KSampler"},
    },
    "2": {"class_type": "Other", "inputs": {"seed": ["1", 0], "color": True}},
}


def client_of(server: Server) -> api.Client:
    return api.Client("127.0.0.1", int(server.url.rsplit(":", 1)[1]))


def waiting(file: Path) -> Prompt:
    return {"1": {"class_type": "WaitForFile", "inputs": {"path": str(file)}}}


def test_seeds_and_colours_vary_and_nothing_else_does() -> None:
    before = copy.deepcopy(PROMPT)
    found = [own_jobs.vary(PROMPT) for _ in range(50)]
    assert before == PROMPT, "a copy varies"
    for name, most in (("seed", 2**31 - 1), ("noise_seed", 2**31 - 1), ("color", 0xFFFFFF)):
        values = {each["1"]["inputs"].pop(name) for each in found}
        assert len(values) > 10
        assert 0 <= min(values) <= max(values) <= most
        del before["1"]["inputs"][name]
    assert all(each == before for each in found)


def test_a_file_that_is_gone_by_now_is_a_failure(tmp_path: Path) -> None:
    file = tmp_path / "job.json"
    with pytest.raises(Failure, match=rf"the workflow {file} is not there: put the workflow there"):
        own_jobs.read_workflow(file)
    file.write_text(json.dumps(PROMPT))
    assert own_jobs.read_workflow(file) == PROMPT


def test_the_built_in_job_leaves_nothing_among_the_outputs(server: Server) -> None:
    assert 0 < own_jobs.run(client_of(server), own_jobs.read_workflow(SMOKE), 30) < 30
    assert list((server.base.path / "output").iterdir()) == []


def test_a_job_of_ours_is_before_all_that_wait(server: Server, tmp_path: Path) -> None:
    client, first, last = client_of(server), tmp_path / "first", tmp_path / "last"
    server.queue(waiting(first))
    until(server.running, 20, "the first")
    behind = server.queue(waiting(last))
    with ThreadPoolExecutor(1) as pool:
        ours = pool.submit(own_jobs.run, client, own_jobs.read_workflow(SMOKE), 30)
        until(lambda: len(server.pending()) == 2, 20, "ours")
        first.touch()
        try:
            ours.result(20)
        finally:
            last.touch()
    server.result(behind)


def test_a_job_that_is_not_done_in_time_waits_no_longer(server: Server, tmp_path: Path) -> None:
    running = server.queue(waiting(tmp_path / "end"))
    until(server.running, 20, "the job")
    with pytest.raises(Failure, match=r"^job \S+ didn't finish within 0.3 s$"):
        own_jobs.run(client_of(server), own_jobs.read_workflow(SMOKE), 0.3)
    assert server.pending() == []
    (tmp_path / "end").touch()
    server.result(running)


def test_a_refused_job_says_which_value_of_which_node(server: Server) -> None:
    prompt: Prompt = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "gone.png"}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    }
    with pytest.raises(Failure, match=r"^refused the job: LoadImage: .*: .*gone\.png$"):
        own_jobs.run(client_of(server), prompt, 30)
