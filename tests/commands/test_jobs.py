"""submit, jobs, cancel, retry, as a person types them."""

from __future__ import annotations

import json
import re
import textwrap
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MachineMaker
from tests.contract.client import Prompt, picture, save, until
from tests.contract.installation import WAITING_NODE
from tests.forge import Forge
from tests.rig import Rig
from tests.services.jobs.receiver import receiver

PATIENCE = 60.0
UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"


@pytest.fixture
def rig(machine: MachineMaker, forge: Forge) -> Rig:
    """A machine with jobs that is up."""
    node = forge.repository("waits", {"__init__.py": textwrap.dedent(WAITING_NODE)})
    found = machine(custom_nodes=[{"url": node.url}])
    found.spec["jobs"] = {"port": found.port(1), "gateway_port": found.port(2)}
    found.doit()
    return found


def file_of(folder: Path, name: str, workflow: Prompt) -> Path:
    path = folder / name
    path.write_text(json.dumps(workflow), encoding="utf-8")
    return path


def pictures() -> Prompt:
    return {"1": picture(), "2": save("1", "picture")}


def waiting(gate: Path) -> Prompt:
    return {"1": {"class_type": "WaitForFile", "inputs": {"path": str(gate)}}}


def rows(rig: Rig, *words: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(rig.doit("jobs", "--json", *words).output)["jobs"]
    return found


def until_job(rig: Rig, job: str, status: str) -> dict[str, Any]:
    def found() -> dict[str, Any] | None:
        (row,) = rows(rig, job)
        return row if row["status"] == status else None

    row = until(found, PATIENCE, f"{job} to be {status}")
    assert row
    return row


def test_workflows_are_sent_and_waited_for(rig: Rig, tmp_path: Path) -> None:
    files = [file_of(tmp_path, f"{name}.json", pictures()) for name in "ab"]
    assert rig.doit("jobs").output == "no job\n"
    said = rig.doit("submit", *map(str, files), "--wait", "--set=1.width=24").output
    ids = re.findall(rf"^({UUID})  .*[ab]\.json$", said, re.M)
    assert len(set(ids)) == 2, said
    assert set(re.findall(rf"^✓ ({UUID})$", said, re.M)) == set(ids)
    assert len(re.findall(r"^  http://\S+/content$", said, re.M)) == 2
    table = rig.doit("jobs").output
    assert all(re.search(rf"^{job} .* comfyui-gpu0|{job} .*succeeded", table, re.M) for job in ids)
    one = rig.doit("jobs", ids[0][:13]).output
    assert one.startswith(f"{ids[0]}  succeeded\n"), one
    assert "picture_0000" in one
    files = [*rig.layout.outputs(0).parent.glob("jobs/*/*.png")]
    assert {file.parent.name for file in files} == set(ids)


def test_a_job_is_cancelled_and_one_that_failed_is_tried_again(rig: Rig, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    first = rig.doit("submit", str(file_of(tmp_path, "w.json", waiting(gate)))).output[:36]
    until_job(rig, first, "running")
    second = rig.doit("submit", "--priority=5", str(tmp_path / "w.json")).output[:36]
    (row,) = rows(rig, second)
    assert (row["status"], row["queue_position"], row["priority"]) == ("queued", 1, 5)
    assert rig.doit("cancel", second[:13], first).output.splitlines()[0] == f"{second}  canceled"
    until_job(rig, first, "canceled")
    bad = file_of(tmp_path, "bad.json", {"1": {"class_type": "SaveImage", "inputs": {}}})
    said = rig.doit("submit", "--wait", str(bad), code=1).output
    assert re.search(rf"^✗ {UUID}: node 1 \(SaveImage\): required_input_missing: ", said, re.M)
    (failed,) = rows(rig, "--failed")
    assert failed["error"]["node_id"] == "1"
    assert rig.doit("retry", failed["id"]).output == f"{failed['id']}  queued\n"
    until_job(rig, failed["id"], "failed")
    said = rig.doit("retry", first, code=1).output
    assert "only a failed or dead one can be tried again" in said


def test_a_webhook_is_told_and_a_job_that_waits_in_vain_says_why(rig: Rig, tmp_path: Path) -> None:
    file = str(file_of(tmp_path, "w.json", pictures()))
    with receiver() as hears:
        job = rig.doit("submit", f"--webhook={hears.url}/done", "--wait", file).output[:36]
        told = until(lambda: re.search(r"^.* was told.*$", rig.doit("jobs", job).output, re.M),
                     PATIENCE, "the webhook to be told")  # fmt: skip
        assert told
        assert told[0] == f"{hears.url}/done was told, with 1 attempt"
        assert hears.heard[0].said["data"]["id"] == job
        (row,) = rows(rig, job)
        assert (row["webhook"]["status"], row["waits_because"]) == ("delivered", None)
    said = rig.doit("submit", "--webhook=done", file, code=1).output
    assert said.startswith("submit: 'webhook_url' is no http or https URL")
    assert len(said.splitlines()) == 1
    rig.doit("cordon", "0")
    job = rig.doit("submit", file).output[:36]
    why = r"waits: no instance (takes it: \S+comfyui-gpu0 \(its worker ends\)|is there: )"
    until(lambda: re.search(why, rig.doit("jobs", job).output), PATIENCE, "the reason")
    assert re.search(f"queued.*{why}", rig.doit("jobs").output)


@pytest.mark.parametrize(
    ("words", "says", "code"),
    [
        (["submit"], "name a workflow", 3),
        (["submit", "nothing.json"], "nothing.json is not there", 1),
        (["submit", "page.json"], "is a workflow as the page saves it", 1),
        (["submit", "one.json", "--set=width"], "--set takes NODE.INPUT=VALUE", 3),
        (["submit", "one.json", "--set=7.width=1"], "no workflow has a node 7", 3),
        (["submit", "one.json"], "jobs are off: write `jobs: true` in", 1),
        (["jobs"], "jobs are off", 1),
        (["cancel"], "name a job", 3),
        (["retry"], "name a job", 3),
    ],
)
def test_what_can_not_be_done_is_one_line(
    machine: MachineMaker, tmp_path: Path, words: list[str], says: str, code: int
) -> None:
    rig = machine()
    file_of(tmp_path, "one.json", pictures())
    tmp_path.joinpath("page.json").write_text(json.dumps({"nodes": [], "links": []}))
    given = [str(tmp_path / word) if word.endswith(".json") else word for word in words]
    said = rig.doit(*given, code=code).output
    assert says in said
    assert len(said.splitlines()) == 1, said


def test_without_a_gateway_the_way_out_is_said(machine: MachineMaker, tmp_path: Path) -> None:
    rig = machine()
    rig.spec["jobs"] = {"port": rig.port(1), "gateway_port": rig.port(2)}
    said = rig.doit("submit", str(file_of(tmp_path, "one.json", pictures())), code=1).output
    assert re.search(r"the gateway doesn't answer at http://127\.0\.0\.1:\d+ .*: run doit", said)


def test_a_workflow_for_nowhere_is_refused_at_once(rig: Rig, tmp_path: Path) -> None:
    file = file_of(tmp_path, "x.json", {"1": {"class_type": "NoSuch", "inputs": {}}})
    # What instances have is known a moment after they have started.
    rig.doit("submit", "--wait", str(file_of(tmp_path, "one.json", pictures())))
    said = rig.doit("submit", str(file), code=1).output
    assert "no instance has node class NoSuch" in said
    assert len(rows(rig)) == 1
